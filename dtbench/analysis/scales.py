"""Scales: which tasks' scores mean the same, so that they may be averaged and share an axis."""

from collections.abc import Collection, Mapping, Sequence

RAW = "raw return"  # how the name of a score without references begins: no two tasks' returns have a scale in common

MIXED_RULE = (
    "The tasks are scored on {} scales, which their names say. Nothing is averaged over tasks of different ones."
)


def scales_of(tasks: Sequence[str], score_names: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """The tasks in groups of one scale each, both in the suite's order: those whose scores have the same name.

    A task that has not run tells no name: it belongs to the others where they have but one scale, else to nobody.
    """
    groups: dict[str, list[str]] = {}
    for task in tasks:
        if name := score_names.get(task):
            groups.setdefault(f"{name} of {task}" if name.startswith(RAW) else name, []).append(task)
    if len(groups) <= 1 and not any(name.startswith(RAW) for name in groups):
        return (tuple(tasks),)
    return (*map(tuple, groups.values()), *((task,) for task in tasks if task not in score_names))


def averages_of(
    scales: Sequence[tuple[str, ...]], score_names: Mapping[str, str], ran: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """By name, the averages over the tasks of each scale: over all and over those that `ran`, if two or more."""
    found = {}
    for scale in (scale for scale in scales if len(scale) > 1):
        told = "" if len(scales) == 1 else f", {score_names[scale[0]]}"
        finished = tuple(task for task in scale if task in ran)
        found[f"average over {len(scale)} tasks{told}"] = scale
        if 1 < len(finished) < len(scale):
            found[f"average over the {len(finished)} tasks that ran{told}"] = finished
    return found
