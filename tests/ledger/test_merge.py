"""`dtbench merge`: what one ledger gets of others, what it refuses, and what a kill in the middle leaves."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtbench.cli.run import app
from dtbench.errors import LedgerError
from dtbench.ledger import lock
from dtbench.ledger.merge import merge
from dtbench.ledger.store import Ledger, write_bytes, write_json
from dtbench.ledger.trial_spec import TrialSpec
from tests.support.tiny_ledger import finish, spec_of, tiny_ledger

SPEC = spec_of("valley", "DT", 0)


def begun(results: Path, spec: TrialSpec, *, step: int | None, checkpoint: bytes = b"weights") -> Path:
    """A trial that was interrupted at a step; None: nobody knows at which."""
    folder = Ledger(results / "runs").begin(spec)
    write_bytes(folder / "checkpoint.pt", checkpoint)
    if step is not None:
        write_json(folder / "running.json", {"host": "elsewhere", "process": 1, "step": step})
    return folder


def failed(results: Path, spec: TrialSpec, *, cause: str = "crash", step: int = 0) -> Path:
    return Ledger(results / "runs").fail(spec, cause=cause, text="ValueError: no", step=step)


def done(results: Path, *specs: TrialSpec, score: float = 50.0) -> None:
    for spec in specs:
        finish(Ledger(results / "runs"), spec, score)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def folder_of(results: str, spec: TrialSpec = SPEC) -> Path:
    return Ledger(Path(results) / "runs").folder(spec)


def state_of(results: str, spec: TrialSpec = SPEC) -> str:
    return Ledger(Path(results) / "runs").state(spec)


def merged(*others: str, dry_run: bool = False) -> dict[str, int]:
    found = merge([Path(other) for other in others], Path("ours"), dry_run=dry_run).counts
    return {kind: number for kind, number in found.items() if number}


def refused(*others: str) -> str:
    """The error of a merge that must change nothing."""
    before = files(Path("ours"))
    with pytest.raises(LedgerError) as caught:
        merge([Path(other) for other in others or ("theirs",)], Path("ours"))
    assert files(Path("ours")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["merge", *arguments, "--results", "ours"])


def test_trials_of_several_machines_come_together() -> None:
    specs = [spec_of("valley", "DT", seed) for seed in range(3)]
    done(Path("ours"), specs[0])
    done(Path("one"), specs[1])
    done(Path("two"), specs[2])
    assert merged("one", "two") == {"copied": 2}
    assert {record.spec.key for record in Ledger(Path("ours/runs")).records()} == {spec.key for spec in specs}
    assert files(folder_of("ours", specs[2])) == files(folder_of("two", specs[2]))


def test_a_ledger_may_be_made_by_a_merge() -> None:
    tiny_ledger(Path("theirs"))
    assert merged("theirs") == {"copied": 12}
    assert files(Path("ours/runs")) == files(Path("theirs/runs"))


def test_merging_twice_changes_nothing() -> None:
    tiny_ledger(Path("theirs"))
    merged("theirs")
    before = files(Path("ours"))
    assert merged("theirs") == {"equal": 12}
    assert files(Path("ours")) == before


def test_no_lock_and_no_half_file_stays_behind() -> None:
    tiny_ledger(Path("theirs"))
    merged("theirs")
    assert [path for path in Path("ours").rglob("*") if path.name.startswith(".")] == []


def test_a_rehearsal_counts_and_writes_nothing() -> None:
    tiny_ledger(Path("theirs"))
    assert merged("theirs", dry_run=True) == {"copied": 12}
    assert not Path("ours").exists()


def test_the_same_outcome_in_another_time_is_equal() -> None:
    done(Path("ours"), SPEC)
    done(Path("theirs"), SPEC)
    result = folder_of("theirs") / "result.json"
    write_json(result, {**json.loads(result.read_text()), "seconds": 99.0})
    before = files(Path("ours"))
    assert merged("theirs") == {"equal": 1}
    assert files(Path("ours")) == before


def test_what_only_a_newer_version_writes_is_no_conflict() -> None:
    done(Path("ours"), SPEC)
    done(Path("theirs"), SPEC)
    result = folder_of("theirs") / "result.json"
    write_json(result, {**json.loads(result.read_text()), "a new field": 1})
    assert merged("theirs") == {"equal": 1}


def test_other_episodes_under_one_key_are_refused_and_both_places_named() -> None:
    done(Path("ours"), SPEC)
    done(Path("theirs"), SPEC, score=51.0)
    done(Path("theirs"), spec_of("hill", "DT", 0))
    said = refused()
    assert SPEC.key in said
    assert "ours against theirs" in said
    assert "Nothing was copied" in said


def test_another_result_under_one_key_is_refused() -> None:
    done(Path("ours"), SPEC)
    done(Path("theirs"), SPEC)
    result = folder_of("theirs") / "result.json"
    write_json(result, {**json.loads(result.read_text()), "parameters": 13})
    assert SPEC.key in refused()


def test_ledgers_that_contradict_each_other_are_refused_though_ours_lacks_the_trial() -> None:
    done(Path("one"), SPEC)
    done(Path("two"), SPEC, score=51.0)
    assert "one against two" in refused("one", "two")


def test_of_many_conflicts_a_few_are_named_and_all_counted() -> None:
    specs = [spec_of("valley", "DT", seed) for seed in range(9)]
    done(Path("ours"), *specs)
    done(Path("theirs"), *specs, score=51.0)
    assert "9 finished trials" in refused()
    assert "5 more" in refused()


@pytest.mark.parametrize("ours", ["interrupted", "failed", "diverged", "missing"])
def test_a_finished_trial_replaces_one_that_is_not(ours: str) -> None:
    make: dict[str, Callable[[], object]] = {
        "interrupted": lambda: begun(Path("ours"), SPEC, step=10, checkpoint=b"ours"),
        "failed": lambda: failed(Path("ours"), SPEC),
        "diverged": lambda: failed(Path("ours"), SPEC, cause="diverged"),
        "missing": lambda: Ledger(Path("ours/runs")).begin(SPEC),
    }
    make[ours]()
    done(Path("theirs"), SPEC)
    assert merged("theirs") == {"copied": 1}
    assert state_of("ours") == "done"
    assert files(folder_of("ours")) == files(folder_of("theirs"))


@pytest.mark.parametrize("theirs", ["interrupted", "failed", "diverged", "missing"])
def test_a_finished_trial_of_ours_stays(theirs: str) -> None:
    make: dict[str, Callable[[], object]] = {
        "interrupted": lambda: begun(Path("theirs"), SPEC, step=19),
        "failed": lambda: failed(Path("theirs"), SPEC),
        "diverged": lambda: failed(Path("theirs"), SPEC, cause="diverged"),
        "missing": lambda: Ledger(Path("theirs/runs")).begin(SPEC),
    }
    make[theirs]()
    done(Path("ours"), SPEC)
    before = files(Path("ours"))
    assert merged("theirs") == {"kept as ours": 1}
    assert files(Path("ours")) == before


def test_of_two_checkpoints_the_further_one_is_kept() -> None:
    begun(Path("ours"), SPEC, step=10, checkpoint=b"ten")
    begun(Path("theirs"), SPEC, step=15, checkpoint=b"fifteen")
    assert merged("theirs") == {"carried further": 1}
    assert (folder_of("ours") / "checkpoint.pt").read_bytes() == b"fifteen"
    assert json.loads((folder_of("ours") / "running.json").read_text())["step"] == 15
    assert merged("theirs") == {"kept as ours": 1}


@pytest.mark.parametrize("step", [None, 9, 10])
def test_a_checkpoint_that_is_not_known_to_be_further_replaces_none(step: int | None) -> None:
    begun(Path("ours"), SPEC, step=10, checkpoint=b"ours")
    begun(Path("theirs"), SPEC, step=step, checkpoint=b"theirs")
    assert merged("theirs") == {"kept as ours": 1}
    assert (folder_of("ours") / "checkpoint.pt").read_bytes() == b"ours"


def test_a_checkpoint_goes_where_there_is_none() -> None:
    begun(Path("theirs"), SPEC, step=None)
    assert merged("theirs") == {"copied": 1}
    assert state_of("ours") == "interrupted"


def test_a_failure_does_not_replace_a_checkpoint() -> None:
    begun(Path("ours"), SPEC, step=5)
    failed(Path("theirs"), SPEC, step=15)
    assert merged("theirs") == {"kept as ours": 1}
    assert state_of("ours") == "interrupted"


def test_that_a_trial_diverged_is_learned_from_others() -> None:
    begun(Path("ours"), SPEC, step=5)
    failed(Path("theirs"), SPEC, cause="diverged", step=7)
    merged("theirs")
    assert state_of("ours") == "diverged"


def test_a_trial_that_only_has_a_name_is_not_copied() -> None:
    Ledger(Path("theirs/runs")).begin(SPEC)
    assert merged("theirs") == {}
    assert not folder_of("ours").exists()


def test_a_renamed_contender_is_the_same_trial() -> None:
    done(Path("ours"), SPEC)
    done(Path("theirs"), SPEC.labelled(suite="other", contender="Transformer"))
    assert merged("theirs") == {"equal": 1}
    assert len(list(Path("ours/runs/valley").iterdir())) == 1


def test_our_labels_of_a_trial_stay_when_its_result_is_theirs() -> None:
    begun(Path("ours"), SPEC, step=1)
    done(Path("theirs"), SPEC.labelled(suite="other", contender="Transformer"))
    merged("theirs")
    (record,) = Ledger(Path("ours/runs")).records()
    assert record.spec.contender == "DT"


# --- suites


def suite(results: str, seeds: tuple[int, ...], **changes: Any) -> None:
    specs = [spec_of("valley", "DT", seed) for seed in seeds]
    document = {
        "name": "tiny",
        "preset": "cpu",
        "overrides": [],
        "contenders": {"DT": {"algorithm": "dt"}},
        "evaluation": {"episodes": 2},
        "tasks": ["valley"],
        "seeds": list(seeds),
        "trials": [spec.to_json() for spec in specs],
        **changes,
    }
    done(Path(results), *specs)
    Ledger(Path(results) / "runs").remember_suite(document)


def remembered() -> dict[str, Any]:
    return dict(Ledger(Path("ours/runs")).remembered_suites()["tiny"])


def test_equal_suites_become_one_with_the_trials_of_both() -> None:
    suite("ours", (0, 1))
    suite("theirs", (1, 2))
    merged("theirs")
    assert remembered()["seeds"] == [0, 1, 2]
    assert [trial["seed"] for trial in remembered()["trials"]] == [0, 1, 2]


def test_a_suite_that_we_lack_is_taken() -> None:
    suite("theirs", (0,))
    merged("theirs")
    assert remembered()["seeds"] == [0]


def test_of_suites_of_one_name_and_two_definitions_ours_stays_and_it_is_said() -> None:
    suite("ours", (0,))
    suite("theirs", (1,), preset="paper", overrides=["budget=5"])
    said = command("theirs")
    assert said.exit_code == 0, said.output
    assert "suite tiny: theirs has other preset, overrides; ours stays." in said.output
    assert "1 copied" in said.output
    assert remembered()["seeds"] == [0]


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"name": "tiny"}', '{"name": 1, "trials": 2}', "\xff", '{"trials": [{}]}', "[" * 100_000],
)
def test_a_damaged_suite_is_named_and_nothing_copied(content: str) -> None:
    suite("theirs", (0,))
    Path("theirs/runs/suites/tiny.json").write_bytes(content.encode("latin-1"))
    assert "suites/tiny.json" in refused()


def test_a_suite_that_gives_a_trial_another_key_is_refused() -> None:
    suite("theirs", (0,))
    path = Path("theirs/runs/suites/tiny.json")
    path.write_text(path.read_text().replace(SPEC.key, "0" * 16))
    assert "no suite" in refused()


# --- what is no ledger


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"seed": 1}', b"[" * 100_000])
def test_a_spec_that_cannot_be_read_is_named_and_nothing_copied(content: bytes) -> None:
    done(Path("theirs"), SPEC, spec_of("hill", "DT", 0))
    (folder_of("theirs") / "spec.json").write_bytes(content)
    assert "spec.json" in refused()


@pytest.mark.parametrize("name", ["result.json", "episodes.parquet"])
@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_finished_trial_with_half_a_file_is_named_and_nothing_copied(name: str, kept: int) -> None:
    done(Path("theirs"), SPEC)
    path = folder_of("theirs") / name
    path.write_bytes(path.read_bytes()[:kept])
    assert name in refused()


def test_a_finished_trial_without_episodes_is_refused() -> None:
    done(Path("theirs"), SPEC)
    (folder_of("theirs") / "episodes.parquet").unlink()
    assert "episodes.parquet" in refused()


def test_a_folder_named_after_another_key_is_refused() -> None:
    done(Path("theirs"), SPEC)
    folder = folder_of("theirs")
    folder.rename(folder.with_name("DT-seed0-0123456789abcdef"))
    assert SPEC.key in refused()


def test_a_trial_among_those_of_another_task_is_refused() -> None:
    done(Path("theirs"), SPEC)
    Path("theirs/runs/valley").rename("theirs/runs/hill")
    assert "'valley'" in refused()


@pytest.mark.parametrize("task", ["..", "../..", "/etc", "../../outside", "a/../../b"])
def test_a_task_that_leads_elsewhere_is_refused(task: str) -> None:
    done(Path("theirs"), SPEC)
    folder = folder_of("theirs")
    document = {**json.loads((folder / "spec.json").read_text()), "task": task}
    document.pop("key")
    spec = TrialSpec.from_json(document)
    write_json(folder / "spec.json", spec.to_json())
    folder.rename(folder.with_name(f"DT-seed0-{spec.key}"))
    assert "of task" in refused()


@pytest.mark.parametrize("contender", ["../../../escaped", "<script>", "-rf", "a\nb", ".hidden", "x" * 300])
def test_a_contender_of_any_name_stays_in_the_ledger(contender: str) -> None:
    done(Path("theirs"), SPEC.labelled(suite="tiny", contender=contender))
    assert merged("theirs") == {"copied": 1}
    ours = [path.relative_to("ours/runs").parts for path in Path("ours").rglob("result.json")]
    assert [(parts[0], len(parts)) for parts in ours] == [("valley", 3)]
    assert {path.name for path in Path().iterdir()} == {"ours", "theirs"}


@pytest.mark.parametrize("name", ["result.json", "checkpoint.pt", "episodes.parquet", "spec.json"])
def test_a_link_in_a_trials_folder_is_refused(name: str) -> None:
    done(Path("theirs"), SPEC)
    secret = Path("secret")
    secret.write_text("{}")
    path = folder_of("theirs") / name
    path.unlink(missing_ok=True)
    path.symlink_to(secret.resolve())
    said = refused()
    assert "is a link" in said or name == "spec.json"


def test_a_folder_that_is_a_link_is_refused() -> None:
    done(Path("elsewhere"), SPEC)
    Path("theirs/runs").mkdir(parents=True)
    Path("theirs/runs/valley").symlink_to(Path("elsewhere/runs/valley").resolve())
    assert "is a link" in refused()


def test_what_is_no_file_is_refused() -> None:
    done(Path("theirs"), SPEC)
    os.mkfifo(folder_of("theirs") / "checkpoint.pt")
    assert "is no file" in refused()


def test_files_that_no_ledger_has_are_left_where_they_are() -> None:
    done(Path("theirs"), SPEC)
    for name in ("notes.md", ".bashrc", "result.json.bak"):
        (folder_of("theirs") / name).write_text("mine")
    (folder_of("theirs") / "more").mkdir()
    merged("theirs")
    assert not {"notes.md", ".bashrc", "result.json.bak", "more"} & {path.name for path in folder_of("ours").iterdir()}


@pytest.mark.parametrize(
    ("others", "said"),
    [(["nowhere"], "holds no ledger"), (["ours"], "merged into"), (["file://host/x"], "names no folder")],
)
def test_a_mistake_is_one_error(others: list[str], said: str) -> None:
    done(Path("ours"), SPEC)
    found = command(*others)
    assert isinstance(found.exception, LedgerError)
    assert said in str(found.exception)


def test_a_ledger_that_a_run_holds_is_not_merged_into() -> None:
    done(Path("theirs"), SPEC)
    with lock.hold(Path("ours/runs")), pytest.raises(LedgerError, match="in use"):
        merge([Path("theirs")], Path("ours"))


# --- a kill in the middle


@contextmanager
def killed_after(files_moved: int) -> Iterator[None]:
    """Within, so many files are moved into place, and then the process is gone."""
    replace, left = os.replace, [files_moved]

    def limited(*arguments: Any, **more: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", limited)
        yield


@pytest.mark.parametrize("files_moved", range(17))
def test_a_merge_that_is_killed_anywhere_is_finished_by_the_same_merge(files_moved: int) -> None:
    specs = [spec_of("valley", "DT", seed) for seed in range(4)]
    failed(Path("ours"), specs[0])
    begun(Path("ours"), specs[1], step=3)
    done(Path("theirs"), *specs[:3])
    begun(Path("theirs"), specs[3], step=8)
    suite("theirs", (0,))
    with killed_after(files_moved), pytest.raises(KeyboardInterrupt):
        merge([Path("theirs")], Path("ours"))
    for result in Path("ours").rglob("result.json"):
        whole = files(Path("theirs") / result.parent.relative_to("ours"))
        assert files(result.parent) == whole, "what reads as done is whole"
    merged("theirs")
    assert files(Path("ours")) == files(Path("theirs"))
    assert merged("theirs").keys() <= {"equal", "kept as ours"}


def test_a_source_on_a_read_only_disk_is_read(tmp_path: Path) -> None:
    tiny_ledger(Path("theirs"))
    for path in [*Path("theirs").rglob("*"), Path("theirs")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert merged("theirs") == {"copied": 12}
    finally:
        for path in [Path("theirs"), *Path("theirs").rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree("theirs")
