"""A small search whose scores a test can work out by hand."""

from typing import Any

from dtbench.tuning.search import Candidate, Score, SearchConfig, SearchRecord

TASK = "valley"
TARGETS = (100.0, 60.0)


def config(**changes: Any) -> SearchConfig:
    return SearchConfig(
        **{
            "suite": "tiny",
            "preset": "",
            "overrides": (),
            "contender": "DT",
            "algorithm": "dt",
            "tasks": (TASK,),
            "trials": ("0123456789abcdef",),
            "space": {"hidden_size": {"choices": (8, 16, 32)}},
            "searcher": "grid",
            "seed": 0,
            "scheduler": "asha",
            "rungs": (10, 40),
            "reduction_factor": 4,
            "training_seeds": (1000,),
            "evaluation_seeds": {TASK: (20_000_000, 20_000_001)},
            "targets": {TASK: TARGETS},
            "score_names": {TASK: "score"},
            "data": {TASK: "generated"},
            **changes,
        }
    )


def candidate(number: int, state: str, *scores: tuple[int, float, float], **changes: Any) -> Candidate:
    """Return one of scores (step, at the first target, at the second)."""
    found = [
        Score(TASK, 1000, step, target, score, 2)
        for step, *both in scores
        for target, score in zip(TARGETS, both, strict=True)
    ]
    steps = max((step for step, *_ in scores), default=0)
    hidden_size = {"hidden_size": (8, 16, 32)[number % 3]}
    return Candidate(
        **{
            "number": number,
            "hyperparameters": hidden_size,
            "state": state,
            "steps": steps,
            "seconds": 1.25,
            "scores": tuple(found),
            **changes,
        }
    )


def record(name: str = "tiny-dt-grid-asha") -> SearchRecord:
    candidates = (
        candidate(0, "stopped", (10, 20.0, 30.0)),
        candidate(1, "done", (10, 40.0, 10.0), (40, 60.0, 80.0)),
        candidate(2, "diverged"),
    )
    return SearchRecord(name=name, config=config(), num_samples=3, candidates=candidates)
