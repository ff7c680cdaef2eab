"""Change one file of a real results directory, as damage or a stranger would, and run every command on it.

    python tests/fuzz/mutations.py --count 5000 --seed 0

Each mutation is a function of the seed and its number. A finding is a traceback, an error of several lines, another
exit code than 0, 1 or 2, more than 60 seconds, or a file changed outside of the results. Exit code 1 where there is
one.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow as pa  # after the path is set
import pyarrow.parquet as pq
import yaml
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.errors import DtbenchError
from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec
from tests.fuzz.outcome import LONGEST
from tests.fuzz.values import NUMBERS, WORDS, places

SUITE = {
    "name": "toy",
    "tasks": ["graph-0", "graph-1"],
    "seeds": [0, 1],
    "evaluation": {"episodes": 2, "every": 2},
    "contenders": {
        "BC": {"algorithm": "dt", "train_steps": 4, "hyperparameters": {"hidden_size": 8, "returns": "none"}},
        "Random": {"algorithm": "random", "train_steps": 0},
    },
}
SECONDS = 60  # that a command may take
SECRET = b"not to be touched"
RUN = ("run", "--suite", "toy.yaml", "--local")
SHORT = (RUN, ("status",), ("status", "--json"), ("export", "rliable", "--force"), ("compare", "results", "results"))
LONG = (("report", "--suite", "toy"), ("report",), ("plot", "--suite", "toy", "--kind", "bars", "--out", "a.png"))


class Finding(AssertionError):
    """What must not come of any input."""


def prepared(folder: Path, searches: Path) -> Path:
    """Return a directory with a suite, its results, a failed and an interrupted trial, and a search."""
    original = folder / "original"
    original.mkdir(parents=True)
    (original / "toy.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    with contextlib.chdir(original):
        for command in (RUN, LONG[0]):
            outcome = CliRunner().invoke(app, command)
            assert outcome.exit_code == 0, outcome.output
        ledger = Ledger(Path("results/runs"))
        spec = ledger.spec(ledger.trial_folders()[0])
        lost, waiting = (TrialSpec.from_json({**spec.to_json(), "key": "", "seed": seed}) for seed in (7, 8))
        ledger.record_failure(lost, cause="crash", text="Traceback\nValueError: no", step=2)
        ledger.add_worker_failure(lost, {"cause": "died", "detail": "x", "when": "2026-01-01T00:00:00", "run": "a"})
        began = {"host": "h", "process": 1, "began": "2026-01-01T00:00:00+00:00", "step": 1, "from_step": 0}
        (ledger.create(waiting) / "running.json").write_text(json.dumps(began))
        suite = json.loads(Path("results/runs/suites/toy.json").read_text())
        suite["trials"] += [lost.to_json(), waiting.to_json()]
        Path("results/runs/suites/toy.json").write_text(json.dumps(suite))
        shutil.copytree(searches, "results/searches")
    return original


def mutate(folder: Path, number: int, seed: int) -> str:
    """Change one file of the results in `folder`; return what was done."""
    chance = random.Random(f"{seed}/{number}")
    files = sorted(path for path in (folder / "results").rglob("*") if path.is_file())
    path = chance.choice(files)
    kinds: list[Callable[[Path, random.Random], str]] = [_bytes, _replaced]
    if path.suffix in (".json", ".jsonl"):
        kinds += [_json] * 8
    elif path.suffix == ".parquet":
        kinds += [_parquet] * 8
    elif path.suffix == ".csv":
        kinds += [_csv] * 4
    return f"{path.relative_to(folder)}: {chance.choice(kinds)(path, chance)}"


def _bytes(path: Path, chance: random.Random) -> str:
    content = path.read_bytes()
    at = chance.randrange(len(content) + 1)
    how = chance.choice(("cut", "flip", "insert", "drop", "empty", "utf-8", "double", "deep"))
    some = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
    if how == "cut":
        content = content[:at]
    elif how == "flip" and content:
        at = min(at, len(content) - 1)
        content = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
    elif how == "drop":
        content = content[:at] + content[at + len(some) :]
    elif how == "double":
        content += content
    elif how == "deep":
        content = b"[" * 100_000
    elif how == "empty":
        content = b""
    else:
        content = content[:at] + (b"\xff\xfe\x80" if how == "utf-8" else some) + content[at:]
    path.write_bytes(content)
    return f"{how} at {at}"


def _replaced(path: Path, chance: random.Random) -> str:
    how = chance.choice(
        ("missing", "directory", "pipe", "link out", "link nowhere", "link to itself", "pickle", "device")
    )
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(_Bomb()))
    elif how != "missing":
        outside = Path("/dev/zero") if how == "device" else Path("../secret").absolute()
        path.symlink_to({"link nowhere": "nowhere", "link to itself": path.name}.get(how, outside))
    return how


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../unpickled",)


def _value(chance: random.Random) -> Any:
    deep: Any = []
    for _ in range(chance.choice((1, 5, 200))):
        deep = [deep]
    simple = (None, True, False, [], {}, "", deep, {"a": {"b": [1]}}, [1, "x", None], *NUMBERS, *WORDS)
    return chance.choice(simple)


def _json(path: Path, chance: random.Random) -> str:
    """Replace, remove, add, rename or copy values at places of a JSON file, or of one of its lines."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    at = chance.randrange(len(lines)) if lines else 0
    whole: list[Any] = [json.loads(lines[at])] if lines else [None]
    done = []
    for _ in range(chance.choice((1, 1, 1, 2))):
        found = list(places(whole))[1:]
        place = chance.choice(found)
        how = chance.choice(("replace", "replace", "replace", "remove", "add", "copy", "rename", "text", "list"))
        _change(whole, place, how, chance, found)
        done.append(f"{how} {'.'.join(map(str, place[1:])) or 'all'}")
        if not whole:
            break
    lines[at : at + 1] = [json.dumps(whole[0] if whole else None)]
    path.write_text("\n".join(lines) + "\n", errors="surrogatepass")
    return f"line {at}, {', '.join(done)}"


def _change(whole: list[Any], place: tuple[Any, ...], how: str, chance: random.Random, found: Sequence[Any]) -> None:
    *above, last = place
    parent: Any = whole
    for key in above:
        parent = parent[key]
    if how == "remove":
        del parent[last]
    elif how == "copy":
        other: Any = whole
        for key in chance.choice(found):
            other = other[key]
        parent[last] = copy.deepcopy(other)
    elif how == "text":
        parent[last] = str(parent[last])
    elif how == "list":
        parent[last] = [parent[last]]
    elif how == "replace" or isinstance(parent, list):
        parent[last] = _value(chance)
    elif how == "rename":
        parent[chance.choice(WORDS)] = parent.pop(last)
    else:
        parent[chance.choice(WORDS)] = _value(chance)


def _parquet(path: Path, chance: random.Random) -> str:
    """Change a column's type, values, name or presence, or the rows."""
    table = pq.read_table(path)
    name = chance.choice(table.column_names)
    at, rows = table.column_names.index(name), table.num_rows
    columns: dict[str, Callable[[], Any]] = {
        "text": lambda: pa.array([str(value) for value in table[name].to_pylist()]),
        "lists": lambda: pa.array([[1.0]] * rows),
        "structs": lambda: pa.array([{"a": 1}] * rows),
        "booleans": lambda: pa.array([True] * rows),
        "nulls": lambda: pa.nulls(rows),
        "some nulls": lambda: pa.array([None if row % 2 else 1 for row in range(rows)]),
        "nan": lambda: pa.array([float("nan")] * rows),
        "infinite": lambda: pa.array([float("inf")] * rows),
        "huge": lambda: pa.array([1e300] * rows),
        "negative": lambda: pa.array([-1] * rows),
        "fractions": lambda: pa.array([0.5] * rows),
        "bytes": lambda: pa.array([b"\xff"] * rows),
        "times": lambda: pa.array([0] * rows, pa.timestamp("ns")),
        "decimals": lambda: pa.array([1] * rows, pa.decimal128(30, 2)),
        "categories": lambda: pa.array(["x"] * rows).dictionary_encode(),
        "unsigned": lambda: pa.array([2**64 - 1] * rows, pa.uint64()),
    }
    how = chance.choice((*columns, "drop", "rename", "no rows", "rows twice", "one row", "metadata"))
    if how in columns:
        table = table.set_column(at, name, columns[how]())
    elif how == "drop":
        table = table.drop_columns([name])
    elif how == "rename":
        table = table.rename_columns([chance.choice(WORDS) if one == name else one for one in table.column_names])
    elif how == "rows twice":
        table = pa.concat_tables([table, table])
    elif how == "metadata":
        table = table.replace_schema_metadata({"pandas": b'{"columns": 7}'})
    else:
        table = table.slice(0, 0 if how == "no rows" else 1)
    pq.write_table(table, path)
    return f"{how} in {name}"


def _csv(path: Path, chance: random.Random) -> str:
    lines = path.read_text().splitlines()
    at = chance.randrange(len(lines))
    cells = lines[at].split(",")
    cells[chance.randrange(len(cells))] = chance.choice(("", "x", "nan", "1e999", '"', "a,b", "=1+1", "\x00"))
    lines[at] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    return f"line {at}: {lines[at][:60]!r}"


def check(original: Path, work: Path, number: int, seed: int, commands: Sequence[Sequence[str]]) -> Counter[str]:
    """Mutate a copy of the results, run the commands, and return their exit codes; raise Finding."""
    shutil.rmtree(work, ignore_errors=True)
    (work.parent / "secret").write_bytes(SECRET)
    shutil.copytree(original, work, symlinks=True)
    outside = _listing(work.parent, work)
    codes: Counter[str] = Counter()
    with contextlib.chdir(work):
        what = mutate(work, number, seed)
        for command in commands:
            try:
                codes[f"{command[0]} {_code(command)}"] += 1
            except Finding as error:
                raise Finding(f"mutation {number} of seed {seed} ({what}), {' '.join(command)}: {error}") from None
    if _listing(work.parent, work) != outside:
        raise Finding(f"mutation {number} of seed {seed} ({what}): a file outside was changed")
    return codes


def _code(command: Sequence[str]) -> int:
    """Return the exit code of a command in this process; raise Finding."""
    with _time_limit(SECONDS), contextlib.redirect_stderr(io.StringIO()):
        outcome = CliRunner().invoke(app, list(command))
    error = outcome.exception
    if isinstance(error, DtbenchError):
        text = str(error)
        if not text or not text.isprintable() or len(text) > LONGEST:
            raise Finding(f"not one short line: {text!r:.300}")
        return 2
    if error is not None and not isinstance(error, SystemExit):
        raise Finding("".join(traceback.format_exception(error))[-1500:])
    if outcome.exit_code not in (0, 1, 2):
        raise Finding(f"exit code {outcome.exit_code}: {outcome.output[-300:]}")
    return outcome.exit_code


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Finding(f"no end in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _listing(folder: Path, without: Path) -> dict[str, bytes | None]:
    """Return what lies beside the working directory."""
    others = (path for path in folder.iterdir() if path != without)
    return {path.name: path.read_bytes() if path.is_file() else None for path in others}


def commands_of(number: int, *, draw: bool = False) -> Sequence[Sequence[str]]:
    """Return the commands for a mutation; drawing takes seconds, so that few draw unless asked to."""
    if draw:
        return (*SHORT, LONG[0])
    return (*SHORT, LONG[number // 40 % len(LONG)]) if number % 40 == 0 else SHORT


def main() -> int:
    """Try so many mutations; print exit codes and findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="report after every mutation, not after each 40th")
    options = parser.parse_args()
    codes: Counter[str] = Counter()
    findings = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"DTBENCH_DATA": str(folder / "data"), "DTBENCH_OFFLINE": "1"}
        original = prepared(folder, Path(__file__).resolve().parents[2] / "results" / "searches")
        for number in range(options.first, options.first + options.count):
            try:
                codes += check(original, folder / "work", number, options.seed, commands_of(number, draw=options.draw))
            except Finding as error:
                findings += 1
                print(f"{error}\n", flush=True)
    print(dict(sorted(codes.items())))
    print(f"{options.count} mutations, {findings} findings, {time.monotonic() - started:.0f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
