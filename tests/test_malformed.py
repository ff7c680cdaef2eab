"""Inputs nobody intended, through the command line: each is one line that says what to do."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dtbench.analysis.archive import write_archive
from dtbench.cli.run import main
from tests.fuzz.files import toy_dataset
from tests.support.tiny_ledger import tiny_ledger

SUITE = (
    "tasks: [key-to-door-1k]\nseeds: [0]\nevaluation: {episodes: 2}\n"
    "contenders:\n  Random: {algorithm: random, train_steps: 0}\n  DT: {algorithm: dt, train_steps: 2}\n"
)
PLAN = ["run", "--dry-run", "--suite", "mine.yaml"]
OWN = ["run", "--dry-run", "--suite", "own-data", "tasks=[gym:Pendulum-v1]"]
PENDULUM = {"observations": (12, 3), "actions": (12, 1), "rewards": (12,), "terminals": (12,)}


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that is to be refused; its one line on stderr."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["dtbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr().err
        assert ended.value.code == 2, printed
        lines = printed.splitlines()
        assert len(lines) == 1, printed
        assert lines[0].startswith("dtbench: ")
        assert lines[0].isprintable()
        assert len(lines[0]) < 620
        return lines[0]

    return run


def suite_with(old: str, new: str) -> str:
    assert old in SUITE
    return SUITE.replace(old, new)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, here in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        pytest.param("", "must be a mapping", id="an empty file"),
        pytest.param("- a\n- b\n", "must be a mapping", id="a list"),
        pytest.param("just words", "must be a mapping", id="a sentence"),
        pytest.param("42", "must be a mapping", id="a number"),
        pytest.param("tasks: [unclosed", "line 1", id="a bracket that is never closed"),
        pytest.param("tasks:\n\t- a\n", "line 2", id="a tab"),
        pytest.param(b"\xff\xfe\x00", "Correct it", id="bytes that are no UTF-8"),
        pytest.param("\x00", "Correct it", id="a zero byte"),
        pytest.param("--- a\n--- b\n", "another document", id="two documents"),
        pytest.param("a: *b\n", "undefined alias", id="an alias of nothing"),
        pytest.param("a: &a [*a]\n", "Circular reference", id="an alias of itself"),
        pytest.param("a: !!python/object/apply:os.system [touch x]\n", "could not determine", id="a Python object"),
        pytest.param("a: !!python/name:os.system\n", "could not determine", id="a Python name"),
        pytest.param(BOMB, "more than 1048576 characters", id="a billion laughs"),
        pytest.param("a: " + "[" * 3000, "nested", id="three thousand brackets"),
        pytest.param("a: " + "[" * 100 + "]" * 100, "unknown key", id="a hundred lists within each other"),
        pytest.param("# " + "x" * 2**20, "1048576 bytes", id="a file of a megabyte"),
        pytest.param(SUITE + "seeds: [1]\n", 'duplicate key "seeds"', id="a duplicate key"),
        pytest.param(SUITE + "1: 2\n", "unknown key '1'", id="a number for a key"),
        pytest.param(SUITE + "title: 2024-01-01\n", "put it in quotes", id="a date for a title"),
        pytest.param(SUITE + "title: 2024-99-99\n", "Correct it", id="a date that is none"),
        pytest.param(SUITE + 'title: "\\ud800"\n', "cannot be printed", id="half a character"),
        pytest.param(SUITE + 'title: "\\e[31m"\n', "cannot be printed", id="an escape of the terminal"),
        pytest.param(SUITE + f"train_steps: {'9' * 5000}\n", "5000 digits", id="a number of five thousand digits"),
        pytest.param(SUITE + "base: mine\n", "another suite", id="a suite that is its own base"),
        pytest.param(SUITE + "base: mine.yaml\n", "bases form a circle", id="a base that goes round"),
        pytest.param(SUITE + "base: nowhere\n", "Known:", id="a base that is not there"),
        pytest.param(SUITE + "base: [a]\n", "another suite", id="a list for a base"),
        pytest.param(SUITE + "presets: 5\n", "mapping of names", id="a number for presets"),
        pytest.param(SUITE + "presets: {smoke: [a]}\n", "mapping of settings", id="a list for a preset"),
        pytest.param(
            SUITE + "presets: {smoke: {contenders: {X*: {train_steps: 1}}}}\n",
            "Known: *, DT",
            id="a pattern in a preset",
        ),
        pytest.param(SUITE + "default_preset: [a]\n", "unknown preset", id="a list for the default preset"),
        pytest.param(SUITE + "name: ../../x\n", "cannot name a suite", id="a name that leads out of its folder"),
        pytest.param(SUITE + "name: /tmp/x\n", "cannot name a suite", id="a name that is a path"),
        pytest.param(SUITE + "name: ''\n", "cannot name a suite", id="no name"),
        pytest.param(SUITE + f"name: {'x' * 300}\n", "at most 80", id="a name of three hundred letters"),
        pytest.param(SUITE + 'name: "a\\nb"\n', "cannot name a suite", id="a name of two lines"),
        pytest.param(SUITE + "name: overview\n", "Choose another", id="the name of a folder of the report"),
        pytest.param(SUITE + "name: index.html\n", "Choose another", id="the name of a file of the report"),
        pytest.param(suite_with("Random:", "'=1+1':"), "as a formula", id="a contender that is a formula"),
        pytest.param(suite_with("Random:", "'@SUM(A1)':"), "as a formula", id="a contender that is a function"),
        pytest.param(suite_with("Random:", "'':"), "cannot name a contender", id="a contender without a name"),
        pytest.param(suite_with("Random:", '"a\\nb":'), "cannot name a contender", id="a contender of two lines"),
        pytest.param(
            suite_with("Random:", f"{'x' * 300}:"), "cannot name a contender", id="a contender of 300 letters"
        ),
        pytest.param(
            suite_with(
                "  Random: {algorithm: random, train_steps: 0}\n  DT: {algorithm: dt, train_steps: 2}", "  - DT"
            ),
            "mapping of names",
            id="a list of contenders",
        ),
        pytest.param(
            suite_with("{algorithm: dt, train_steps: 2}", "DT"), "mapping of settings", id="a word for a contender"
        ),
        pytest.param(suite_with("algorithm: dt,", "algorithm: '',"), "Known:", id="an algorithm without a name"),
        pytest.param(
            suite_with("algorithm: dt,", "algorithm: '../x:Y',"),
            "nor an installed module",
            id="an algorithm elsewhere",
        ),
        pytest.param(
            suite_with("algorithm: dt,", "algorithm: 'os:system',"),
            "not a dataclass",
            id="a function for an algorithm",
        ),
        pytest.param(
            suite_with("train_steps: 2", "train_steps: -1"), "greater than or equal to 0", id="a negative budget"
        ),
        pytest.param(
            suite_with("train_steps: 2", "train_steps: 1000000000000"),
            "less than or equal",
            id="a budget of a million million",
        ),
        pytest.param(suite_with("train_steps: 2", "train_steps: .inf"), "train_steps", id="a budget without end"),
        pytest.param(suite_with("train_steps: 2", "train_steps: lots"), "integer", id="a word for a budget"),
        pytest.param(
            suite_with("episodes: 2", "episodes: 1000000000000"), "less than or equal", id="a million million episodes"
        ),
        pytest.param(
            suite_with("episodes: 2", "every: 0"),
            "greater than or equal to 1",
            id="an evaluation after every no steps",
        ),
        pytest.param(
            suite_with("episodes: 2", "targets: [.nan]"), "finite number", id="a target that is not a number"
        ),
        pytest.param(suite_with("episodes: 2", "targets: [.inf]"), "finite", id="a target without end"),
        pytest.param(suite_with("seeds: [0]", "seeds: [-1]"), "greater than or equal to 0", id="a negative seed"),
        pytest.param(suite_with("seeds: [0]", "seeds: [3000000000]"), "less than or equal", id="a seed of 32 bits"),
        pytest.param(suite_with("seeds: [0]", "seeds: []"), "at least 1", id="no seeds"),
        pytest.param(suite_with("seeds: [0]", "seeds: [0, 0]"), "twice", id="a seed twice"),
        pytest.param(suite_with("tasks: [key-to-door-1k]", "tasks: []"), "at least 1", id="no tasks"),
        pytest.param(
            suite_with("key-to-door-1k", "minari:../../etc"), "not an id of a dataset", id="a set out of its folder"
        ),
        pytest.param(suite_with("key-to-door-1k", "atari:../../x"), "Atari game", id="a game that is a path"),
        pytest.param(
            suite_with("key-to-door-1k", "json:loads"), "Correct it there", id="a function that makes no task"
        ),
        pytest.param(SUITE + "task_options: {steps: 5}\n", "unknown option", id="an option that a task does not have"),
        pytest.param(
            SUITE + "by_task: {nowhere-*: {evaluation: {episodes: 1}}}\n", "Known:", id="a pattern for no task"
        ),
        pytest.param(SUITE + "published: 7\n", "published", id="a number for published tables"),
    ],
)
def test_a_suites_file(refused: Callable[..., str], tmp_path: Path, content: str | bytes, remedy: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert remedy in refused(*PLAN)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml"}


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        pytest.param(["--seeds", "0..99999999999"], "numbers up to", id="a range of a hundred thousand million seeds"),
        pytest.param(["--seeds", "0..10000000"], "Write fewer", id="a range of ten million seeds"),
        pytest.param(["--seeds", ""], "write 0..4", id="an empty text for seeds"),
        pytest.param(["--seeds", "1;rm"], "write 0..4", id="a command for seeds"),
        pytest.param(["--seeds", "٣"], "write 0..4", id="a digit of another script"),
        pytest.param(["--preset", "../x"], "unknown preset", id="a path for a preset"),
        pytest.param(["-t", "../*"], "unknown task", id="a pattern for files"),
        pytest.param(["-t", "["], "unknown task", id="a bracket for a pattern"),
        pytest.param(["-c", "**/x"], "unknown contender", id="a glob for a contender"),
        pytest.param(["-c", "x" * 5000], "unknown contender", id="a contender of five thousand letters"),
        pytest.param(["--source", "/etc/passwd"], "source of key-to-door-1k", id="a file for a source"),
        pytest.param(["DT.hidden_size"], "write path=value", id="an override without a value"),
        pytest.param(["=5"], "write path=value", id="an override without a path"),
        pytest.param(["DT.hidden_size=[1,"], "Put text in quotes", id="a value that is no YAML"),
        pytest.param(["seeds.0=5"], "valid list", id="a path into a list"),
        pytest.param(["name.first=5"], "valid string", id="a path into a text"),
        pytest.param(["contenders=5"], "contenders", id="a number for all contenders"),
        pytest.param(
            ["contenders=[DT]", "DT.hidden_size=3"], "mapping of names", id="a list of contenders, and one of them"
        ),
        pytest.param(["DT.optimizer.rate=3"], "unknown setting", id="a path to what a contender does not have"),
        pytest.param(
            ["evaluation.episodes=!!python/name:os.system"], "Put text in quotes", id="a Python name for a value"
        ),
        pytest.param(["DT.learning_rate=.nan"], "nan. Write a number", id="a learning rate that is not a number"),
        pytest.param(["DT.learning_rate='nan'"], "Write a number", id="the same, as a text"),
        pytest.param(["DT.hidden_size=1000000000"], "exceeds the maximum", id="a layer of a thousand million units"),
        pytest.param(["DT.betas=[1,2,3]"], "hyperparameter", id="a hyperparameter of another algorithm"),
    ],
)
def test_a_command(refused: Callable[..., str], tmp_path: Path, arguments: list[str], remedy: str) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE)
    assert remedy in refused(*PLAN, *arguments)


@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        pytest.param("DT.batch_size=0", "must be 1 or more", id="batches of nothing"),
        pytest.param("DT.num_heads=0", "must be 1 or more", id="no heads"),
        pytest.param("DT.hidden_size=-8", "must be 1 or more", id="a layer of less than no units"),
        pytest.param("DT.learning_rate=-1", "must be 0 or more", id="a negative learning rate"),
        pytest.param(
            "DT.num_layers=0 DT.scale_residuals=true", "With its defaults it can", id="what fails while it is built"
        ),
        pytest.param("DT.warmup_steps=0.5", "valid integer", id="half a step"),
        pytest.param("DT.num_heads=3", "not a multiple", id="heads that do not share a layer evenly"),
    ],
)
def test_hyperparameters_with_which_no_learner_can_begin(
    refused: Callable[..., str], tmp_path: Path, override: str, remedy: str
) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE)
    assert remedy in refused("run", "--local", "--suite", "mine.yaml", *override.split())


def _hdf5(path: Path, **changes: Any) -> None:
    with h5py.File(path, "w") as file:
        for key, shape in PENDULUM.items():
            if changes.get(key, 0) is not None:
                usual = np.full(shape, key == "terminals", np.float32)
                file.create_dataset(key, data=changes.get(key, usual))


def _linked(path: Path) -> None:
    _hdf5(path, rewards=None)
    _hdf5(path.with_name("other.hdf5"))
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.ExternalLink("other.hdf5", "rewards")


def _virtual(path: Path) -> None:
    _hdf5(path, rewards=None)
    with h5py.File(path, "a") as file:
        layout = h5py.VirtualLayout((12,), "f4")
        layout[:] = h5py.VirtualSource("other.hdf5", "rewards", (12,))
        file.create_virtual_dataset("rewards", layout)


def _outside(path: Path) -> None:
    _hdf5(path, rewards=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (12,), "f4", external=[("/etc/passwd", 0, 48)])


def _huge(path: Path) -> None:
    _hdf5(path, rewards=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (10**12,), "f4", chunks=(1000,))


@pytest.mark.parametrize(
    ("write", "remedy"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "put an intact copy", id="an empty file"),
        pytest.param(
            lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 99), "put an intact copy", id="a header alone"
        ),
        pytest.param(lambda path: _hdf5(path, rewards=None), "no key 'rewards'", id="no rewards"),
        pytest.param(lambda path: _hdf5(path, rewards=np.zeros((12, 2))), "not [N]", id="rewards of two columns"),
        pytest.param(
            lambda path: _hdf5(path, rewards=np.full(12, np.nan)), "not finite", id="rewards that are no numbers"
        ),
        pytest.param(lambda path: _hdf5(path, rewards=[b"x"] * 12), "not numbers", id="rewards of words"),
        pytest.param(lambda path: _hdf5(path, terminals=np.full(12, 2.0)), "not 0 or 1", id="terminals of two"),
        pytest.param(lambda path: _hdf5(path, actions=np.zeros((7, 1))), "has 7 rows", id="too few actions"),
        pytest.param(_linked, "is a link", id="a link to another file"),
        pytest.param(_virtual, "lies in other files", id="a virtual dataset of another file"),
        pytest.param(_outside, "lies in other files", id="rewards that are the bytes of /etc/passwd"),
        pytest.param(_huge, "declares", id="four million million bytes that are not there"),
    ],
)
def test_an_hdf5_file(refused: Callable[..., str], write: Callable[[Path], Any], remedy: str) -> None:
    write(Path("mine.hdf5"))
    assert remedy in refused(*OWN, "task_options.file=mine.hdf5")


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        pytest.param(["task_options.file=/etc/passwd"], "HDF5", id="a file that is none"),
        pytest.param(["task_options.file=nowhere.hdf5"], "no file", id="a file that is not there"),
        pytest.param(["task_options.file=[a]"], "must be a path", id="a list for a file"),
        pytest.param(["task_options.file=~nobody-here/x"], "Correct it there", id="a file of nobody"),
        pytest.param(
            ["tasks=[gym:os:system]", "task_options.file=x.hdf5"],
            "gymnasium cannot make",
            id="a module for an environment",
        ),
        pytest.param(["tasks=['gym:']", "task_options.file=x.hdf5"], "gymnasium cannot make", id="no environment"),
        pytest.param(["task_options.file=x.hdf5", "task_options.horizon=0"], "whole number", id="games of no steps"),
        pytest.param(
            ["task_options.file=x.hdf5", "task_options.reference_min=.inf", "task_options.reference_max=1"],
            "less than",
            id="a reference without end",
        ),
    ],
)
def test_options_of_ones_own_data(refused: Callable[..., str], options: list[str], remedy: str) -> None:
    _hdf5(Path("x.hdf5"))
    assert remedy in refused(*OWN, *options)


def _shard(folder: Path, **contents: bytes) -> None:
    arrays = {"observation": np.zeros((60, 84, 84), np.uint8), "action": np.zeros(60, np.int32)}
    arrays |= {"reward": np.zeros(60, np.float32), "terminal": np.ones(60, np.uint8)}
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / "array.npy", array)
        content = contents.get(name) or gzip.compress((folder / "array.npy").read_bytes(), 1)
        (folder / f"$store$_{name}_ckpt.49.gz").write_bytes(content)


HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '%s', 'fortran_order': False, 'shape': (%s,), }"


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        pytest.param(b"not gzip", "Delete it", id="that is no gzip"),
        pytest.param(gzip.compress(b"x" * 99), "Delete it", id="that is no array"),
        pytest.param(
            gzip.compress((HEADER % (b"|O", b"60")).ljust(127) + b"\n" + b"cos\nsystem\n."), "object", id="of pickles"
        ),
        pytest.param(
            gzip.compress((HEADER % (b"<i4", b"10" * 15)).ljust(127) + b"\n"), "Delete it", id="of 10^30 rows"
        ),
    ],
)
def test_a_shard(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, remedy: str
) -> None:
    monkeypatch.setenv("DQN_REPLAY_DIR", str(tmp_path / "replay"))
    _shard(tmp_path / "replay" / "Pong", action=content)
    assert remedy in refused("data", "show", "atari:pong", "--source", "dqn-replay")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        pytest.param(["data", "show", "../x"], "unknown task", id="a path for a task"),
        pytest.param(
            ["data", "get", "minari:/etc"], "not an id of a dataset", id="a set that is a folder of the machine"
        ),
        pytest.param(["data", "get", "minari:a/../../b-v0"], "not an id of a dataset", id="a set that goes up"),
        pytest.param(["data", "generate", "hopper-medium-v2", "--steps", "0"], "at least 1000", id="data of no steps"),
        pytest.param(
            ["data", "generate", "hopper-medium-v2", "--steps", "9" * 15], "at most", id="data of 10^15 steps"
        ),
        pytest.param(["data", "generate", "hopper-medium-v2", "--seed", "-1"], "whole number", id="a negative seed"),
        pytest.param(["data", "ls", "["], "unknown task", id="a pattern for no task"),
        pytest.param(["status", "../../x"], "unknown trial", id="a path for a trial"),
        pytest.param(["check", "nowhere:X"], "nor an installed module", id="an algorithm of no module"),
        pytest.param(["check", "broken:X"], "broken.py, line 1", id="an algorithm that cannot be imported"),
        pytest.param(["report", "--suite", "../x"], "Run a suite first", id="a path for a suite to report"),
        pytest.param(["compare", "--", "-x", "y"], "no such directory", id="an option for a folder"),
    ],
)
def test_a_name(refused: Callable[..., str], tmp_path: Path, arguments: list[str], remedy: str) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    assert remedy in refused(*arguments)


@pytest.mark.parametrize(
    ("file", "content", "remedy"),
    [
        pytest.param("scores/tiny/suite.json", "{", "Restore it", id="half of its suite"),
        pytest.param("scores/tiny/suite.json", "[]", "Restore it", id="a list for its suite"),
        pytest.param(
            "scores/tiny/suite.json",
            '{"suite": {"contenders": 5}, "provenances": []}',
            "Restore it",
            id="a number for its contenders",
        ),
        pytest.param("scores/tiny/trials.jsonl", "null\n", "Restore it", id="nothing for a trial"),
        pytest.param("scores/tiny/trials.jsonl", "[" * 100_000, "Restore it", id="a hundred thousand brackets"),
        pytest.param("scores/tiny/episodes.parquet", "PAR1", "Restore it", id="no episodes"),
        pytest.param("scores/tiny/remarks.md", b"\xff", "Restore it", id="remarks that are no UTF-8"),
        pytest.param("scores/tiny.csv", "suite,task\n", "the episodes beside it", id="another table"),
    ],
)
def test_an_archive_with(
    refused: Callable[..., str], tmp_path: Path, file: str, content: str | bytes, remedy: str
) -> None:
    write_archive(tiny_ledger(tmp_path / "elsewhere"), tmp_path / "results" / "scores")
    (tmp_path / "results" / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert remedy in refused("report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("result.json", "", id="an empty result"),
        pytest.param("result.json", '{"status": "do', id="half a result"),
        pytest.param("result.json", "null", id="nothing for a result"),
        pytest.param("spec.json", "{}", id="an empty spec"),
        pytest.param("spec.json", json.dumps({"key": "0" * 16}), id="a key for a spec"),
        pytest.param("episodes.parquet", "", id="no episodes"),
        pytest.param("provenance.json", "[]", id="a list for its provenance"),
    ],
)
def test_a_ledger_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, file: str, content: str
) -> None:
    tiny_ledger(tmp_path / "results")
    folder = sorted((tmp_path / "results" / "runs" / "hill").iterdir())[0]
    (folder / file).write_text(content)
    monkeypatch.setattr(sys, "argv", ["dtbench", "export", "rliable"])
    with pytest.raises(SystemExit, match="0"):
        main()
    damaged, *others = capsys.readouterr().err.splitlines()
    assert damaged.startswith("left out: cannot read ")
    assert file in damaged
    assert "Delete that trial's directory" in damaged
    assert others == ["left out: contender BC, seed 0 (no hill)"]


def test_a_store_whose_files_were_changed(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dtbench.data import cache

    monkeypatch.setenv("DTBENCH_DATA", str(Path("store").absolute()))
    cache.save(toy_dataset(), cache.root() / "key-to-door-1k-seed0")
    (cache.root() / "key-to-door-1k-seed0" / "rewards.npy").write_bytes(b"PK\x03\x04")
    assert "Delete that directory" in refused("data", "show", "key-to-door-1k")


def test_a_store_that_cannot_be_written(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("store").write_text("a file where a folder is wanted")
    monkeypatch.setenv("DTBENCH_DATA", str(Path("store").absolute()))
    assert "Set DTBENCH_DATA" in refused("data", "show", "key-to-door-1k")
