"""Every mistake a user can make, as an exception that says what to do next."""

import difflib
from collections.abc import Iterable


class DtbenchError(Exception):
    """A mistake with a remedy: the CLI prints its text without a traceback and exits with 2."""


class UnknownName(DtbenchError):
    """A suite, task, contender, algorithm or key that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        """Say what was asked, which names come nearest, and what exists."""
        names = sorted(map(str, known))
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        text = f"unknown {kind} {name!r}."
        if near:
            text += f" Did you mean {' or '.join(repr(n) for n in near)}?"
        text += f" Known: {', '.join(names) if names else 'none'}."
        super().__init__(f"{text} {hint}".rstrip())


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


class NothingToReport(DtbenchError):
    """A report was asked for, but no trial of the suite has finished."""
