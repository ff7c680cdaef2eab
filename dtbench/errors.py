"""Exceptions for users' mistakes: each message says what to do next."""

import difflib
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 560  # characters of an error's text
_SHOWN = 280  # characters of a list of names in it
FOREIGN = (Exception, SystemExit)  # of plug-ins: a script that exits must not end dtbench as if all were well


def decimals_of(*values: float) -> int:
    """Return how many decimals numbers are shown with: one, or two digits of the largest where one would show 0.0."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 1 if largest >= 0.05 or largest < 1e-9 else 1 - math.floor(math.log10(largest))  # less is rounding


class DtbenchError(Exception):
    """A mistake with a remedy: the CLI prints its message without a traceback and exits with 2."""

    def __str__(self) -> str:
        """Return the message on one line."""
        return one_line(super().__str__())


def abridged(value: Any, most: int = 8) -> Any:
    """Return the value; of a list of more than `most` items only the first, the last and their number."""
    if not isinstance(value, list) or len(value) <= most:
        return value
    return [value[0], f"... {len(value)} in all ...", value[-1]]


def one_line(text: str, longest: int = LONGEST) -> str:
    """Join the words with single spaces; cut the middle out of a longer text."""
    words = " ".join(text.split())
    if not words.isprintable():
        words = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    if len(words) <= longest:
        return words
    end = longest // 3  # where the remedy is
    return f"{words[: longest - end - 5]} ... {words[-end:]}"


class UnknownName(DtbenchError):
    """A suite, task, contender, algorithm or key that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        """Name what does not exist, the nearest names, and all known ones."""
        names = sorted(map(str, known))
        name = one_line(str(name), 100)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        text = f"unknown {kind} {name!r}."
        if near:
            text += f" Did you mean {' or '.join(repr(n) for n in near)}?"
        super().__init__(f"{text} Known: {_listed(names)}. {hint}".rstrip())

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the error from its message when a worker process returns it."""
        return _rebuilt, (type(self), self.args)


def _listed(names: Sequence[str]) -> str:
    """Join as many names as fit on a line."""
    room = itertools.accumulate(len(name) + 2 for name in names)
    shown = names[: max(1, sum(used <= _SHOWN for used in room))]
    more = len(names) - len(shown)
    return f"{', '.join(shown) or 'none'}{f' and {more} more' if more else ''}"


def _rebuilt(kind: type[Exception], args: tuple[str, ...]) -> Exception:
    return kind.__new__(kind, *args)


class InvalidSuite(DtbenchError):
    """A suite file that is not valid."""


class InvalidValue(DtbenchError):
    """A hyperparameter or option of the wrong type or out of range."""


class InvalidDataset(DtbenchError):
    """Arrays that do not make up whole, finite episodes of the declared spaces."""


class MissingDataset(DtbenchError):
    """A dataset that is not on disk and cannot be generated."""


class InvalidAlgorithm(DtbenchError):
    """An algorithm or learner that breaks the contract of `dtbench.algorithm`."""


class IncompatibleTask(DtbenchError):
    """An algorithm that cannot learn this task, e.g. a discrete learner on continuous actions."""


class LedgerError(DtbenchError):
    """A ledger that cannot be read, written or locked."""


class LedgerUnwritable(LedgerError):
    """A ledger that can no longer be written to: all trials stop, and earlier results are kept."""


class RayDied(DtbenchError):
    """A Ray of this run's own whose raylet died: finished trials and checkpoints are kept."""


class NothingToReport(DtbenchError):
    """A report of suites without a finished trial."""
