"""Values, texts and damage of any kind."""

import copy
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

WORDS = (
    *(
        "",
        " ",
        ".",
        "..",
        "../x",
        "/etc/passwd",
        "~",
        "~nobody/x",
        "a/b",
        "a\\b",
        "con",
        "-",
        "--",
        "*",
        "[",
        "**",
        "{",
        "%",
    ),
    *("<script>alert(1)</script>", "</script>", "'; DROP TABLE", "${HOME}", "$(id)", "`id`", "%s%n", "{0.__class__}"),
    *(
        "x" * 300,
        "🙂",
        "👩‍🚀",
        "é",
        "ﬁ",
        "\u202eabc",
        "\u2028",
        "\x00",
        "\x1b[31m",
        "a\nb",
        "a\tb",
        "\ud800",
        "\ufeff",
    ),
    *(
        "true",
        "null",
        "nan",
        "inf",
        "-1",
        "1e999",
        "0x10",
        "1:30",
        "2024-01-01",
        "!!int x",
        "&a",
        "*a",
        "<<",
        "=",
        "a=b",
    ),
    *(
        "overview",
        "templates",
        "index",
        "all",
        "auto",
        "minari:../../x",
        "gym:",
        "gym:../x:Y",
        "atari:../pong",
        ":",
        "a:b",
    ),
    *("file:x", "minari:", "os:system", "DT", "key-to-door-1k", "hopper-medium-v2", "smoke", "__class__", "name"),
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    2**31,
    2**31 - 1,
    2**63,
    2**64,
    -(2**63),
    10**12,
    10**30,
    0.5,
    1e308,
    -0.0,
    math.nan,
    math.inf,
    -math.inf,
)

texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
plain = st.one_of(st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), texts)
anything = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything inside of a value, itself first."""
    yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*above, key))


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[Any]) -> Any:
    """A value in which a few places are replaced, left out, copied elsewhere, or renamed."""
    whole = [copy.deepcopy(draw(originals))]
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(whole))[1:]
        *above, last = draw(st.sampled_from(found))
        parent = whole
        for key in above:
            parent = parent[key]
        how = draw(st.sampled_from(("replace", "replace", "remove", "add", "copy", "rename")))
        if how == "replace" or len(above) == 0:
            parent[last] = draw(anything)
        elif how == "remove":
            del parent[last]
        elif how == "copy":
            parent[last] = _at(whole, draw(st.sampled_from(found)))
        elif isinstance(parent, list):
            parent.append(draw(anything))
        elif how == "rename":
            parent[draw(texts)] = parent.pop(last)
        else:
            parent[draw(texts)] = draw(anything)
        whole = [_copied(whole[0])]
    return whole[0]


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _copied(value: Any, depth: int = 0) -> Any:
    """Without what is part of itself, which `copy` may have made."""
    if depth > 30:
        return None
    if isinstance(value, dict):
        return {key: _copied(item, depth + 1) for key, item in value.items()}
    return [_copied(item, depth + 1) for item in value] if isinstance(value, list) else value


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """What to do with a file's bytes: see `damaged`."""
    how = st.sampled_from(("flip", "flip", "set", "cut", "drop", "insert", "double"))
    step = st.tuples(how, st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))
    return draw(st.lists(step, min_size=1, max_size=5))


def damaged(content: bytes, steps: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes with these steps taken: each at its share of the length."""
    for how, share, some in steps:
        at = int(share * len(content))
        if how == "flip" and content:
            content = content[:at] + bytes([content[at] ^ (1 << some[0] % 8)]) + content[at + 1 :]
        elif how == "set":
            content = content[:at] + some + content[at + len(some) :]
        elif how == "cut":
            content = content[:at]
        elif how == "drop":
            content = content[:at] + content[at + some[0] :]
        elif how == "insert":
            content = content[:at] + some + content[at:]
        else:
            content = content[:at] + content
    return content
