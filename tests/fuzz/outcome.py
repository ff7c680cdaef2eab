"""What may come of an input that nobody intended: success, or one line that says what to do."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from dtbench.errors import DtbenchError

LONGEST = 600  # characters of an error

Check = Callable[[Path, Any], None]  # a fresh folder, which is the working directory, and an input


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to be fuzzed: inputs, and what is done with each."""

    name: str
    inputs: st.SearchStrategy[Any]
    check: Check


def outcome_of(check: Check, folder: Path, given: Any) -> str:
    """How it ended: "fine" or the kind of error; AssertionError for an error of more than one line.

    Anything else that is raised is a finding, and so is a warning: it would be a second line on stderr.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            check(folder, given)
        except DtbenchError as error:
            text = str(error)
            assert text, "an error without a word"
            assert text.isprintable(), f"not one line: {text!r}"
            assert len(text) <= LONGEST, f"{len(text)} characters: {text!r}"
            return type(error).__name__
    return "fine"
