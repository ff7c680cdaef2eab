"""Every mistake a user can make, as an exception that says what to do next."""

import difflib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 560  # characters of an error's text
_SHOWN = 280  # characters of a list of names in it


class DtbenchError(Exception):
    """A mistake with a remedy: the CLI prints its text without a traceback and exits with 2."""

    def __str__(self) -> str:
        """The text on one line, whatever a library's message that it quotes looks like."""
        return one_line(super().__str__())


def abridged(value: Any, most: int = 8) -> Any:
    """The value; of a list of more than `most` the first and the last, and how many there are."""
    if not isinstance(value, list) or len(value) <= most:
        return value
    return [value[0], f"... {len(value)} in all ...", value[-1]]


def one_line(text: str, longest: int = LONGEST) -> str:
    """Words with single spaces between them; of a text that is too long, the beginning and the end."""
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
        """Say what was asked, which names come nearest, and what exists."""
        names = sorted(map(str, known))
        name = one_line(str(name), 100)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        text = f"unknown {kind} {name!r}."
        if near:
            text += f" Did you mean {' or '.join(repr(n) for n in near)}?"
        super().__init__(f"{text} Known: {_listed(names)}. {hint}".rstrip())

    def __reduce__(self) -> tuple[Any, ...]:
        """Worker processes hand errors back: rebuilt from its text, not from its arguments."""
        return _remade, (type(self), self.args)


def _listed(names: Sequence[str]) -> str:
    """As many of the names as a line has room for."""
    room = itertools.accumulate(len(name) + 2 for name in names)
    shown = names[: max(1, sum(used <= _SHOWN for used in room))]
    more = len(names) - len(shown)
    return f"{', '.join(shown) or 'none'}{f' and {more} more' if more else ''}"


def _remade(kind: type[Exception], args: tuple[str, ...]) -> Exception:
    return kind.__new__(kind, *args)


class InvalidSuite(DtbenchError):
    """A suite file that cannot be understood."""


class InvalidValue(DtbenchError):
    """A hyperparameter or option of the wrong type or out of range."""


class InvalidDataset(DtbenchError):
    """Arrays that do not make up whole, finite episodes of the declared spaces."""


class MissingDataset(DtbenchError):
    """Data that is neither on disk nor can be made here."""


class InvalidAlgorithm(DtbenchError):
    """An algorithm or learner that breaks the contract of `dtbench.algorithm`."""


class IncompatibleTask(DtbenchError):
    """An algorithm that cannot learn this task, e.g. a discrete learner on continuous actions."""


class LedgerError(DtbenchError):
    """A ledger that cannot be read, written or locked."""


class LedgerUnwritable(LedgerError):
    """A ledger that can no longer be written to: no trial can go on. What it holds is whole."""


class NothingToReport(DtbenchError):
    """A report was asked for, but no trial of the suite has finished."""
