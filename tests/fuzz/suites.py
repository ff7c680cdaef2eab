"""Suites, overrides, seeds and names that nobody intended."""

import copy
import json
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from dtbench import registry
from dtbench.analysis.published import published_tables
from dtbench.ledger.store import Ledger
from dtbench.suite import package_data
from dtbench.suite.planning import load_suite, narrow, parse_seeds, resolved_document, trial_specs
from dtbench.suite.schema import Suite
from tests.fuzz.outcome import Target
from tests.fuzz.values import anything, damage, damaged, mutated, texts

_FIRST = "!!python/object/apply:os.system [echo]"
_TAGS = "!!python/name:os.system|!!binary aaa|!!timestamp x|!!bool x|!!int x|!!float x|!!set {a}|!!omap [a: 1]"
_SIGNS = "&a [*a];*b;<<: *c;<<: 1;\t;\ufeff;{;[;};? ;- ;|;>;%YAML 9.9\n;---\n;...\n"
_NUMBERS = f"2024-01-01;2024-99-99;{'9' * 5000};0b2;1e999;.nan;1:30:30;0o7"
_TEXTS = '\';";"\\ud800";"\\x00";key: 1\nkey: 2\n;@;`;base: bomb;\x85;\u2028;=;~;name: ../x\n;name: x/y\n'
TOKENS = (
    *(_FIRST, "[" * 2000, "{a: " * 500),
    *_TAGS.split("|"),
    *(token for tokens in (_SIGNS, _NUMBERS, _TEXTS) for token in tokens.split(";")),
)
TINY: Mapping[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "tasks": ["key-to-door-1k"],
    "seeds": [0, 1],
    "evaluation": {"episodes": 2, "every": 5, "targets": [1.0], "sweep": 2},
    "resources": {"cpu": 1, "gpu": 0},
    "contenders": {
        "DT": {
            "algorithm": "dt",
            "train_steps": 2,
            "hyperparameters": {"hidden_size": 8, "num_layers": 1, "context": 2},
        },
        "CQL": {
            "algorithm": "discrete_cql",
            "train_steps": 2,
            "by_task": {"key-*": {"hyperparameters": {"hidden_size": 8}}},
        },
    },
    "by_task": {"key-*": {"evaluation": {"episodes": 3}}},
    "presets": {"smoke": {"seeds": [0], "contenders": {"DT": {"train_steps": 1}}}},
    "default_preset": "smoke",
    "published": [
        {
            "file": "decision_transformer.csv",
            "table": "6",
            "datasets": {"key-to-door-1k": "1K Random Trajectories"},
            "contenders": {"DT": "DT"},
        }
    ],
}


@cache
def shipped_texts() -> tuple[str, ...]:
    """The files of the suites that dtbench ships."""
    names = [name for name in package_data.names("sweeps") if name.endswith(".yaml")]
    return tuple(package_data.find("sweeps", name).read_text() for name in names)


@cache
def _documents() -> tuple[str, ...]:
    return tuple(json.dumps(yaml.safe_load(text)) for text in (*shipped_texts(), yaml.safe_dump(dict(TINY))))


_shipped_documents = st.deferred(lambda: st.sampled_from(_documents()).map(json.loads))
_tiny = st.just(TINY).map(copy.deepcopy)
_presets = st.one_of(st.none(), st.sampled_from(("smoke", "cpu", "paper")), texts)


@st.composite
def _suite_texts(draw: st.DrawFn) -> bytes:
    """The text of a shipped suite with tokens where none belong, or bytes changed."""
    text = draw(st.deferred(lambda: st.sampled_from(shipped_texts())))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(TOKENS)) + text[at:]
    content = text.encode("utf-8", "surrogatepass")
    return damaged(content, draw(damage())) if draw(st.booleans()) else content


def _load_document(folder: Path, given: tuple[Any, str | None]) -> None:
    document, preset = given
    (folder / "mine.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    _use(load_suite("mine.yaml", preset=preset))


def _load_text(folder: Path, content: bytes) -> None:
    (folder / "mine.yaml").write_bytes(content)
    _use(load_suite("mine.yaml"))


def _use(suite: Suite) -> None:
    """All that is asked of a suite before its datasets are opened."""
    json.dumps(resolved_document(suite, ()), allow_nan=True).encode("utf-8")
    narrow(suite, tasks=["*"], contenders=["*"])
    published_tables(suite.model_dump(mode="json"))
    for task in suite.tasks:
        suite.options_of(task)
        suite.evaluation_of(task)


def _plan(folder: Path, document: Any) -> None:
    """As `dtbench run --dry-run` of a suite whose datasets are small."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    suite = load_suite("mine.yaml")
    if any(task not in ("key-to-door-1k", "graph-0") for task in suite.tasks):
        return
    if len(suite.seeds) * len(suite.contenders) > 1000:
        return
    specs = trial_specs(suite)
    ledger = Ledger(folder / "results" / "runs")
    ledger.save_suite(resolved_document(suite, specs))
    for spec in specs[:3]:
        assert ledger.state(spec) == "missing"
        ledger.create(spec)
        assert ledger.folder(spec).parent.parent == ledger.root
    assert {path.name for path in folder.iterdir()} <= {"mine.yaml", "results"}
    assert {path.name for path in (folder / "results").iterdir()} == {"runs"}


def _or_text(names: str) -> st.SearchStrategy[str]:
    """One of these names, between which there is one space, or any text."""
    return st.one_of(st.sampled_from(names.split(" ")), texts)


_HEADS = _or_text("DT D* * train_steps evaluation seeds tasks contenders name published by_task title")
_TAILS = _or_text(" train_steps hyperparameters hidden_size episodes targets algorithm by_task 0 key-* evaluation")


@st.composite
def _overrides(draw: st.DrawFn) -> str:
    path = [draw(_HEADS), *draw(st.lists(_TAILS, max_size=3))]
    value = draw(st.one_of(texts, st.sampled_from(TOKENS), anything.map(json.dumps)))
    return draw(st.sampled_from(("{}={}", "{}={}", "{}={}", "{}{}", "={}{}"))).format(".".join(path), value)


def _override(folder: Path, given: list[str]) -> None:
    (folder / "mine.yaml").write_text(yaml.safe_dump(dict(TINY), sort_keys=False))
    _use(load_suite("mine.yaml", overrides=given))


def _seeds(folder: Path, text: str) -> None:
    assert len(parse_seeds(text)) <= 100_000


def _names(folder: Path, given: tuple[str, str, Any]) -> None:
    what, name, options = given
    if what == "task":
        if name.partition(":")[0] in ("minari", "gym", "atari") or ":" not in name:
            registry.make_task(name, options if isinstance(options, dict) else None)
    elif what == "algorithm":
        registry.algorithm_class(name)
    elif what == "hyperparameters":
        registry.all_hyperparameters("dt_atari", options if isinstance(options, dict) else {name: options})
    elif what == "suite":
        load_suite(name)
    else:
        narrow(_tiny_suite(), tasks=[name])


@cache
def _tiny_suite() -> Suite:
    return load_suite("key-to-door")


_hyperparameters, _options = (
    st.dictionaries(_or_text(names), anything, max_size=3)
    for names in (
        "width heads betas channels returns context learning_rate dropout",
        "steps seed file physics protocol horizon max_frames reference_min",
    )
)
_tasks = st.one_of(
    _or_text("hopper-medium-v2 atari:pong gym:CartPole-v1 gym:Pendulum-v1 key-to-door-1k graph-1"),
    st.tuples(st.sampled_from(("gym:", "minari:", "atari:", "os:", "json:")), texts).map("".join),
)

TARGETS = (
    Target("suite document", st.tuples(mutated(_shipped_documents), _presets), _load_document),
    Target("suite text", _suite_texts(), _load_text),
    Target("suite planned", mutated(_tiny), _plan),
    Target("overrides", st.lists(_overrides(), min_size=1, max_size=3), _override),
    Target(
        "seeds",
        st.one_of(texts, st.text("0123456789.,- ", max_size=30), st.text(string.printable, max_size=12)),
        _seeds,
    ),
    Target("tasks", st.tuples(st.just("task"), _tasks, st.one_of(st.none(), _options)), _names),
    Target(
        "hyperparameters", st.tuples(st.just("hyperparameters"), texts, st.one_of(anything, _hyperparameters)), _names
    ),
    Target("names", st.tuples(st.sampled_from(("algorithm", "suite", "pattern")), texts, st.none()), _names),
)
