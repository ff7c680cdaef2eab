"""Run trials one after another in this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dtbench.ledger.store import Ledger
from dtbench.ledger.trial_spec import TrialSpec, TrialState
from dtbench.tracking.live import tracked
from dtbench.trial import CHECKPOINT_SECONDS, OnSaved, ShouldStop, ignore, never_stop, run_trial

if TYPE_CHECKING:  # pyarrow's filesystems are for results at an address
    from dtbench.ledger.remote import Remote

OnProgress = Callable[[TrialSpec, TrialState, int, float | None], None]  # (trial, state, gradient steps, latest score)


def run_local(
    specs: Sequence[TrialSpec],
    root: Path,
    on_progress: OnProgress,
    *,
    should_stop: ShouldStop = never_stop,
    remote: "Remote | None" = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tracker: str = "",
) -> dict[str, TrialState]:
    """Run the trials one after another in this process; return each key's final state.

    Once `should_stop` returns True, the running trial writes its checkpoint and no further one begins. `tracker` is
    the name of one that follows the trials (`dtbench.tracking.live`), or "".
    """
    states: dict[str, TrialState] = {}
    for spec in specs:
        if should_stop():
            states[spec.key] = TrialState.STOPPED
            continue
        on_progress(spec, TrialState.RUNNING, 0, None)
        with (
            trial_ledger(spec, root, remote) as (ledger, on_saved),
            tracked(tracker, spec, ledger, on_saved) as on_logged,
        ):
            states[spec.key] = run_trial(
                spec,
                ledger,
                should_stop=should_stop,
                on_progress=partial(on_progress, spec, TrialState.RUNNING),
                on_saved=on_saved,
                on_logged=on_logged,
                checkpoint_seconds=checkpoint_seconds,
            )
        on_progress(spec, states[spec.key], spec.train_steps if states[spec.key] is TrialState.DONE else 0, None)
    return states


@contextmanager
def trial_ledger(spec: TrialSpec, root: Path, remote: "Remote | None") -> Iterator[tuple[Ledger, OnSaved]]:
    """Yield the ledger in which a trial runs, and the function to call after writing to its directory."""
    if remote is None:
        yield Ledger(root), ignore
    else:
        from dtbench.ledger.remote import working_copy

        with working_copy(remote, spec) as (folder, on_saved):
            yield Ledger(folder), on_saved
