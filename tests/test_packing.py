"""Seeds that learn together learn what they learn apart, and are recorded as if they had."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dtbench import registry
from dtbench.cli import main
from dtbench.decision_transformer.agent import DecisionTransformerLearner
from dtbench.errors import InvalidAlgorithm
from dtbench.execution import run_locally
from dtbench.ledger import Ledger
from dtbench.packing import bundles, can_pack, packed_learner, run_packed
from dtbench.spec import TrialSpec
from dtbench.trial import Undertaking, run_trial
from tests.test_resume import CHOICES, FRAMES, ROBOT, WALKS, Case

CPU = torch.device("cpu")
FAST = {"learning_rate": 0.01, "warmup_steps": 1, "dropout": 0.0}  # weights move far, and nothing is drawn
CASES = [
    Case(ROBOT, "dt", {**FAST, "average_decay": 0.9, "decay_steps": 20}),
    Case(ROBOT, "dt", {**FAST, "returns": "none", "gradient_clip": 1e-3}),
    Case(CHOICES, "dt", {**FAST, "returns": "generated", "cut_off_return": -99.0, "relative_timesteps": True}),
    Case(WALKS, "dt", {**FAST, "returns": "predicted", "balance_returns": True}),
    Case(FRAMES, "dt_atari", {**FAST, "weight_decay": 0.5, "schedule": "constant"}),
    Case(FRAMES, "dt_atari", {**FAST, "returns": "none", "standardize_images": True, "schedule": "constant"}),
]


def learners(case: Case, seeds: Sequence[int] = (0, 1, 2)) -> tuple[Any, list[DecisionTransformerLearner]]:
    spec = case.spec
    algorithm: Any = registry.make_algorithm(spec.algorithm, spec.hyperparameters)
    dataset = registry.make_task(spec.task).open()
    return algorithm, [algorithm.learner(dataset, seed=seed, device=CPU) for seed in seeds]


def assert_same_state(
    ours: Sequence[DecisionTransformerLearner], theirs: Sequence[DecisionTransformerLearner]
) -> None:
    """All but the biases of keys, which no softmax feels: AdamW makes steps of their gradients' rounding errors."""
    for one, other in zip(ours, theirs, strict=True):
        states = [dict(learner.state_dict()) for learner in (one, other)]
        for state in states:
            for kind in ("network", "average"):
                state[kind] = {
                    name: torch.cat([value[: len(value) // 3], value[2 * len(value) // 3 :]])
                    if name.endswith("qkv.bias")
                    else value
                    for name, value in state[kind].items()
                }
        assert_close(*states)


def assert_close(ours: Any, theirs: Any, where: str = "state") -> None:
    """Equal up to rounding, all the way down."""
    if isinstance(ours, torch.Tensor) and ours.is_floating_point():
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=lambda text: f"{where}: {text}")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for name in ours:
            assert_close(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_close(one, other, f"{where}[{place}]")
    else:
        assert ours == pytest.approx(theirs), where


@pytest.mark.parametrize("case", CASES, ids=str)
def test_packed_learners_learn_what_they_learn_apart_and_go_on_alone_and_together(case: Case) -> None:
    algorithm, packed = learners(case)
    apart = learners(case)[1]
    for learner in (*packed, *apart):
        learner.update()  # before they are packed: AdamW knows them already
    pack = algorithm.pack(packed)
    for _ in range(3):
        together = pack.update()
        alone = [learner.update() for learner in apart]
        assert_close([dict(metrics) for metrics in together], [dict(metrics) for metrics in alone], "metrics")
    pack.unpack()
    assert_same_state(packed, apart)
    assert_close([own.update() for own in packed], [own.update() for own in apart], "alone again")
    pack = algorithm.pack(packed[1:])
    assert_close(list(pack.update()), [own.update() for own in apart[1:]], "with fewer")
    pack.unpack()
    assert_same_state(packed, apart)
    name = next(name for name, value in packed[0].network.named_parameters() if value.dim() > 1)
    weights = [dict(own.network.named_parameters())[name] for own in packed]
    assert (weights[0] - weights[1]).abs().max() > 1e-3  # or any mixture of them would pass


def test_a_pack_may_go_on_after_it_was_unpacked() -> None:
    algorithm, packed = learners(CASES[0])
    apart = learners(CASES[0])[1]
    pack = algorithm.pack(packed)
    for _ in range(3):
        pack.update()
        pack.unpack()
        for learner in apart:
            learner.update()
        assert_same_state(packed, apart)


@pytest.mark.parametrize(
    "case", [Case(ROBOT, "dt", {"dropout": 0.5}), Case(FRAMES, "dt_atari", {"dropout": 0.5})], ids=str
)
def test_with_dropout_a_pack_draws_the_same_windows_but_other_gaps_and_leaves_the_global_stream(case: Case) -> None:
    algorithm, packed = learners(case, (7, 7))  # equal seeds: what they have in common is not dropout's
    (alone,) = learners(case, (7,))[1]
    before = torch.get_rng_state()
    one, other = (float(metrics["action_loss"]) for metrics in algorithm.pack(packed).update())
    assert torch.equal(torch.get_rng_state(), before)
    assert one != other
    alone.update()
    states = [learner.sampler.rng.bit_generator.state for learner in (*packed, alone)]
    assert states[0] == states[1] == states[2]


def test_precision_bf16_can_be_packed() -> None:
    case = Case(ROBOT, "dt", {**FAST, "precision": "bf16"})
    algorithm, packed = learners(case)
    apart = learners(case)[1]
    together = [float(metrics["action_loss"]) for metrics in algorithm.pack(packed).update()]
    assert together == pytest.approx([float(own.update()["action_loss"]) for own in apart], rel=0.02)


def test_a_learner_is_packed_by_name_of_its_algorithm_alone() -> None:
    assert [name for name in ("dt", "dt_atari", "bc", "random") if can_pack(name)] == ["dt", "dt_atari"]
    dataset = registry.make_task(ROBOT).open()
    pack = packed_learner(registry.make_algorithm("dt", {"width": 8, "layers": 1}), dataset, seeds=(0, 1), device=CPU)
    assert len(pack.update()) == 2
    with pytest.raises(InvalidAlgorithm, match="BehaviorCloning has no method pack"):
        packed_learner(registry.make_algorithm("bc", {}), dataset, seeds=(0, 1), device=CPU)


def seeds_of(case: Case, *seeds: int, **changes: Any) -> list[TrialSpec]:
    return [dataclasses.replace(case.spec, seed=seed, **changes) for seed in seeds]


def undertakings(specs: Sequence[TrialSpec], root: Path, report: Any = None) -> list[Undertaking]:
    return [Undertaking(spec, root, report, checkpoint_seconds=1000) for spec in specs]


def states(begun: Sequence[Undertaking]) -> list[str]:
    return [one.state for one in begun]


def test_bundles_hold_seeds_of_one_cell_whose_algorithm_can_be_packed() -> None:
    walks, robots, clones = (
        seeds_of(case, 0, 1, 2) for case in (Case(WALKS, "dt"), Case(ROBOT, "dt"), Case(ROBOT, "bc"))
    )
    mixed = [walks[0], clones[0], robots[0], walks[1], robots[1], clones[1], walks[2]]
    assert bundles(mixed, 2) == [[walks[0], walks[1]], [clones[0]], robots[:2], [clones[1]], [walks[2]]]
    assert bundles(mixed, 1) == [[spec] for spec in mixed]


def assert_recorded_alike(specs: Sequence[TrialSpec], ours: Path, theirs: Path) -> None:
    for spec in specs:
        one, other = (Ledger(root).record(spec) for root in (ours, theirs))
        assert one is not None
        assert other is not None
        files = [sorted(path.name for path in Ledger(root).folder(spec).iterdir()) for root in (ours, theirs)]
        assert files[0] == files[1]
        assert {**one.result, "seconds": 0} == {**other.result, "seconds": 0}
        assert one.episodes().equals(other.episodes())
        assert_close(one.metrics().to_dict("list"), other.metrics().to_dict("list"))


def test_trials_that_learned_together_are_recorded_as_if_apart(tmp_path: Path) -> None:
    specs = seeds_of(CASES[2], 3, 4, 5)
    told: list[int] = []
    begun = undertakings(specs, tmp_path / "packed", lambda step, score: told.append(step))
    run_packed(begun)
    assert states(begun) == ["done"] * 3
    assert told == [step for step in range(1, 14) for _ in specs]
    for spec in specs:
        assert run_trial(spec, tmp_path / "apart") == "done"
    assert_recorded_alike(specs, tmp_path / "packed", tmp_path / "apart")
    provenances = [Ledger(tmp_path / name).record(specs[0]).provenance for name in ("packed", "apart")]  # type: ignore[union-attr]
    assert [provenance.get("packed") for provenance in provenances] == [3, None]
    again = undertakings(specs, tmp_path / "packed")
    run_packed(again)
    assert states(again) == ["done"] * 3


def test_a_killed_pack_goes_on_together_and_apart(tmp_path: Path) -> None:
    specs = seeds_of(CASES[2], 3, 4, 5)
    calls = []

    def killed(step: int, score: float | None) -> None:
        calls.append(step)
        if len(calls) == 3 * 6 + 1:  # in step 7, after the evaluation of step 5
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_packed(undertakings(specs, tmp_path / "packed", killed))
    assert run_trial(specs[0], tmp_path / "packed") == "done"  # alone from step 5
    steps: list[int] = []
    rest = undertakings(specs, tmp_path / "packed", lambda step, score: steps.append(step))
    run_packed(rest)
    assert states(rest) == ["done"] * 3
    assert steps == [step for step in range(6, 14) for _ in specs[1:]]
    for spec in specs:
        run_trial(spec, tmp_path / "apart")
    assert_recorded_alike(specs, tmp_path / "packed", tmp_path / "apart")


def test_who_is_behind_catches_up_and_joins_the_others(tmp_path: Path) -> None:
    specs = seeds_of(CASES[2], 3, 4)
    asked = iter([False] * 6)
    assert run_trial(specs[1], tmp_path, stop=lambda: next(asked, True)) == "stopped"  # at step 7
    taken: list[tuple[int, int]] = []
    begun = [
        Undertaking(spec, tmp_path, lambda step, score, seed=spec.seed: taken.append((step, seed))) for spec in specs
    ]
    run_packed(begun)
    assert states(begun) == ["done", "done"]
    assert taken == [(step, 3) for step in range(1, 8)] + [(step, seed) for step in range(8, 14) for seed in (3, 4)]


def test_a_pack_that_is_stopped_keeps_what_all_have_learned(tmp_path: Path) -> None:
    specs = seeds_of(CASES[2], 3, 4)
    asked = iter([False] * 2)
    begun = undertakings(specs, tmp_path)
    run_packed(begun, lambda: next(asked, True))
    assert states(begun) == ["stopped", "stopped"]
    kept = [torch.load(Ledger(tmp_path).folder(spec) / "checkpoint.pt", weights_only=True) for spec in specs]
    assert [state["step"] for state in kept] == [3, 3]


def test_a_seed_that_diverges_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = seeds_of(CASES[2], 3, 4, 5)
    for spec in specs:
        run_trial(spec, tmp_path / "apart")
    begin = DecisionTransformerLearner.__init__

    def spoiled(self: DecisionTransformerLearner, *given: Any, seed: int, **named: Any) -> None:
        begin(self, *given, seed=seed, **named)
        if seed == 4:
            self.network.transformer.norm.weight.data.fill_(float("nan"))

    monkeypatch.setattr(DecisionTransformerLearner, "__init__", spoiled)
    begun = undertakings(specs, tmp_path / "packed")
    run_packed(begun)
    assert states(begun) == ["done", "diverged", "done"]
    assert "not finite at step 1" in (Ledger(tmp_path / "packed").folder(specs[1]) / "error.txt").read_text()
    assert_recorded_alike([specs[0], specs[2]], tmp_path / "packed", tmp_path / "apart")


def test_a_seed_whose_game_fails_leaves_the_others_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = seeds_of(CASES[2], 3, 4)
    begun = undertakings(specs, tmp_path)
    opened = begun[0].open

    def broken() -> Any:
        trial = opened()
        monkeypatch.setattr(trial, "_evaluate", lambda: 1 / 0)
        return trial

    monkeypatch.setattr(begun[0], "open", broken)
    run_packed(begun)
    assert states(begun) == ["failed", "done"]
    assert "ZeroDivisionError" in (Ledger(tmp_path).folder(specs[0]) / "error.txt").read_text()


def test_what_a_common_step_raises_fails_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("dtbench.decision_transformer.pack.TransformerPack.update", full)
    specs = seeds_of(CASES[2], 3, 4)
    begun = undertakings(specs, tmp_path)
    run_packed(begun)
    assert states(begun) == ["failed", "failed"]
    assert [Ledger(tmp_path).failure(spec)["cause"] for spec in specs] == ["out of memory"] * 2


def test_local_runs_tell_of_every_trial_whether_packed_or_not(tmp_path: Path) -> None:
    specs = [*seeds_of(CASES[2], 3, 4), *seeds_of(Case(ROBOT, "bc"), 3)]
    told: list[tuple[str, str]] = []
    final = run_locally(
        specs, tmp_path, lambda spec, state, step, score: told.append((spec.key, f"{state} {step}")), pack=2
    )
    assert final == {spec.key: "done" for spec in specs}
    for spec in specs:
        own = [said for key, said in told if key == spec.key]
        assert own == [*(f"running {step}" for step in range(14)), "done 13"]
    stopped = run_locally(seeds_of(CASES[2], 5, 6), tmp_path, lambda *told: None, pack=2, stop=lambda: True)
    assert list(stopped.values()) == ["stopped", "stopped"]


def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code of the command line, and all that it says."""
    monkeypatch.setattr(sys, "argv", ["dtbench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), "".join(capfd.readouterr())


RUN = ("run", "--suite", "key-to-door", "--preset", "smoke", "budget=3", "evaluation.episodes=4", "evaluation.every=2")


def test_a_suite_can_be_run_packed_and_reported_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ("-c", "DT", "-c", "CQL", "--seeds", "0..2", "--local", "--pack", "2")
    code, text = said(monkeypatch, capfd, *RUN, *chosen)
    assert code == 0, text
    assert "up to 2 seeds learn together: DT\n" in text
    assert "on a processor they learn faster one by one" in text
    assert "cannot be packed: CQL\n" in text
    assert len(list((tmp_path / "results" / "runs").rglob("result.json"))) == 6
    code, text = said(monkeypatch, capfd, "report")
    assert code == 0, text
    assert "DT" in Path(text.strip()).read_text()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--local", "--pack", "0"), "--pack 0"),
        (("--local", "--pack", "-2"), "--pack -2"),
        (("--pack", "2"), "needs --local"),
        (("--pack", "2", "--address", "auto"), "needs --local"),
    ],
)
def test_a_pack_that_cannot_be_is_one_error_before_anything_runs(
    options: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = said(monkeypatch, capfd, *RUN, *options)
    assert code == 2
    assert complaint in text
    assert len(text.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_packed_seeds_are_timed_against_one() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "packing.py"
    command = [sys.executable, str(script), "--quick", "--seeds", "2"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [row["what"] for row in found["packed"]] == ["key-to-door, 2 seeds", "hopper, 2 seeds"]
    assert found["device"] == "cpu"
    for row in found["packed"]:
        assert row["gain"] == pytest.approx(2 / row["times_as_long"]["median"], rel=0.01)
