"""A small search whose scores a test can work out by hand."""

from typing import Any

from dtbench.tuning.search import Question, Row, Sample, SearchRecord

TASK = "valley"
TARGETS = (100.0, 60.0)


def question(**changes: Any) -> Question:
    return Question(
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


def sample(number: int, state: str, *scores: tuple[int, float, float], **changes: Any) -> Sample:
    """Of rows (step, score at the first target, score at the second)."""
    rows = [
        Row(TASK, 1000, step, target, score, 2)
        for step, *both in scores
        for target, score in zip(TARGETS, both, strict=True)
    ]
    steps = max((step for step, *_ in scores), default=0)
    width = {"hidden_size": (8, 16, 32)[number % 3]}
    return Sample(
        **{
            "number": number,
            "hyperparameters": width,
            "state": state,
            "steps": steps,
            "seconds": 1.25,
            "rows": tuple(rows),
            **changes,
        }
    )


def record(name: str = "tiny-dt-grid-asha") -> SearchRecord:
    samples = (
        sample(0, "stopped", (10, 20.0, 30.0)),
        sample(1, "done", (10, 40.0, 10.0), (40, 60.0, 80.0)),
        sample(2, "diverged"),
    )
    return SearchRecord(name, question(), 3, samples)
