"""What the files of a ledger must look like, whoever wrote them."""

from collections.abc import Mapping
from typing import Any

from dtbench.errors import LedgerError
from dtbench.ledger.trial_spec import TrialSpec


def check_suite(suite: Mapping[str, Any]) -> None:
    """Raise TypeError or KeyError where what a report reads of a suite is of another kind than a suite's."""
    kinds = {"tasks": list, "contenders": dict, "seeds": list, "evaluation": dict, "published": list}
    for key, kind in kinds.items():
        if not isinstance(suite.get(key, kind()), kind):
            raise TypeError(f"{key} is {suite[key]!r:.60}, not a {kind.__name__}")
    texts = {key: suite.get(key) or "" for key in ("name", "title", "description", "preset")}
    tasks = {f"tasks.{number}": task for number, task in enumerate(suite.get("tasks", ()))}
    for key, text in {**texts, **tasks}.items():
        if not isinstance(text, str):
            raise TypeError(f"{key} is {text!r:.60}, not text")
    if "name" in suite:
        check_file_name(suite["name"])
    for label, settings in suite["contenders"].items():
        if not isinstance(settings, dict):
            raise TypeError(f"contenders.{label} is {settings!r:.60}, not a mapping")


def check_labels(spec: TrialSpec) -> None:
    """Raise TypeError where what is no part of the key is of another kind than it should be."""
    labels = (spec.suite, spec.contender, spec.dataset_source, spec.open_from)
    if not all(isinstance(label, str) for label in labels) or not isinstance(spec.resources, dict):
        raise TypeError(f"suite, contender, sources or resources of trial {spec.key} are of another kind")


def check_result(result: Mapping[str, Any]) -> None:
    """Raise TypeError for anything but what a finished trial writes."""
    if not isinstance(result, dict) or not isinstance(result.get("action_mode"), str):
        raise TypeError("a result without an action mode")
    for name in ("seconds", "steps", "parameters", "context"):
        if not isinstance(result.get(name), int | float | None):
            raise TypeError(f"{name} is {result[name]!r:.40}, not a number")


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Raise TypeError where what a trial came from is put together otherwise than trials write it."""
    if not isinstance(provenance, dict):
        raise TypeError("a provenance that is no mapping")
    dataset = provenance.get("dataset") or {}
    parts = {name: provenance.get(name) for name in ("dataset", "task", "versions")}
    parts |= {name: dataset.get(name) for name in ("info", "card")} if isinstance(dataset, dict) else {}
    for name, part in parts.items():
        if not isinstance(part, dict | None):
            raise TypeError(f"{name} is {part!r:.40}, not a mapping")


def check_file_name(name: str) -> None:
    """Raise LedgerError for a suite's name, after which files are called, that would lead to another folder."""
    if not name or name.startswith(".") or set(name) & {"/", "\\", "\0"}:
        raise LedgerError(
            f"{name!r:.100} is no name for a suite: its files would lie elsewhere. Rename it in the ledger."
        )
