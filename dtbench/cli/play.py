"""`dtbench play`: evaluate the policy of a finished trial at target returns, and film it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dtbench.cli.completion import complete_key
from dtbench.cli.options import JsonOption
from dtbench.cli.report import ResultsOption
from dtbench.errors import DtbenchError, decimals_of

if TYPE_CHECKING:  # heavy modules are imported by the command: --help answers at once
    import pandas as pd

    from dtbench.execution.policy import Policy


def play(
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="A finished trial's key or its beginning.", autocompletion=complete_key),
    ],
    target: Annotated[
        list[float] | None, typer.Option(help="Target return. Repeatable. Default: those of the trial.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each target.")] = 10,
    video: Annotated[Path | None, typer.Option(metavar="FILE.mp4", help="Film one episode of each target.")] = None,
    gif: Annotated[Path | None, typer.Option(metavar="FILE.gif", help="The same as an animated GIF.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the filmed episode.")] = None,
    json_: JsonOption = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Play the policy of a finished trial: print what it achieves at each target return, and film it.

    The trial's data are not needed. `dtbench status --json` and the column `trial` of results/scores/SUITE.csv have
    the keys. Films of several targets are named FILE-TARGET.mp4.
    """
    from dtbench.execution.policy import load_policy
    from dtbench.execution.video import check_film

    films = [path for path in (video, gif) if path is not None]
    for path, suffix in ((video, ".mp4"), (gif, ".gif")):
        if path is not None and check_film(path).suffix.lower() != suffix:
            raise DtbenchError(f"{path}: its suffix is {suffix}.")
    policy = load_policy(results, key)
    table = policy.evaluate(target or None, episodes=episodes)
    rows = _rows(table)
    if not json_:
        _print(policy, rows)
    made = [
        str(film) if not json_ else str(film.path) for film in _films(policy, [r["target"] for r in rows], films, seed)
    ]
    if json_:
        typer.echo(json.dumps({"policy": repr(policy), "targets": rows, "films": made}, indent=2))
    else:
        typer.echo("\n".join(made), nl=bool(made))


def _rows(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a row a target: episodes, mean return with its range, mean score and length."""
    rows = []
    for target, own in table.groupby("target", dropna=False, sort=False):
        achieved = own["achieved"] if "achieved" in own else own["return"]
        rows.append(
            {
                "target": None if target != target else float(target),  # nan: the policy takes none
                "episodes": len(own),
                "achieved": float(achieved.mean()),
                "lowest": float(achieved.min()),
                "highest": float(achieved.max()),
                "score": float(own["score"].mean()),
                "steps": float(own["length"].mean()),
            }
        )
    return rows


def _print(policy: "Policy", rows: Sequence[dict[str, Any]]) -> None:
    from dtbench.cli.progress import say, show_plain

    say(repr(policy))
    units = policy.task.target_units.name if policy.task.target_units else "return"
    names = ["target", "episodes", f"mean {units}", "range", policy.task.score_name, "steps"]
    show_plain([names, *(_cells(row) for row in rows)])


def _cells(row: dict[str, Any]) -> list[str]:
    target = "none" if row["target"] is None else f"{row['target']:g}"
    achieved, low, high, score = (
        f"{row[name]:.{decimals_of(row[name])}f}" for name in ("achieved", "lowest", "highest", "score")
    )
    return [target, str(row["episodes"]), achieved, f"{low} to {high}", score, f"{row['steps']:.0f}"]


def _films(policy: "Policy", targets: Sequence[float | None], paths: Sequence[Path], seed: int | None) -> list[Any]:
    """Film an episode of each target into each path."""
    several = len(targets) > 1
    return [
        policy.record(
            path.with_name(f"{path.stem}-{target:g}{path.suffix}") if several else path,
            target_return=target,
            seed=seed,
        )
        for path in paths
        for target in targets
    ]


COMMANDS: tuple[Callable[..., None], ...] = (play,)
