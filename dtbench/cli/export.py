"""The commands of `dtbench export`: scores and policies for other programs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dtbench.cli.completion import complete_key, complete_suite
from dtbench.cli.report import ResultsOption, SuitesOption, warn_left_out
from dtbench.errors import DtbenchError, InvalidValue

export_app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

SuiteOption = Annotated[
    str | None, typer.Option("--suite", "-s", help="Default: the only suite.", autocompletion=complete_suite)
]
OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, empty or new.")]


@export_app.command()
def rliable(
    suite: SuiteOption = None,
    out: Annotated[Path | None, typer.Option(help="A .npz file. Default: <suite>-rliable.npz.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Write a suite's final scores for rliable.

    An .npz with an array of each contender (seeds x tasks), without holes;
    what is left out is named. To read it:
    scores = dict(np.load(path)); tasks = scores.pop("tasks")

    Other programs read results/scores/<suite>.csv (a row a trial, checkpoint
    and target) and results/scores/<suite>/episodes.parquet.
    """
    from dtbench.analysis.results_directory import load_results
    from dtbench.cli.rliable import check_path, write_rliable

    if out is not None:
        check_path(out, force=force)
    found = load_results(results, [suite] if suite else [])
    if len(found) > 1:
        raise DtbenchError(f"there are {len(found)} suites: {', '.join(one.name for one in found)}. Name a --suite.")
    path = out or Path(f"{found[0].name}-rliable.npz")
    check_path(path, force=force)
    warn_left_out([*found[0].damaged, *write_rliable(found[0], path)])
    typer.echo(str(path.resolve()))


@export_app.command()
def hf(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="Key of a finished trial of `dt`, or its beginning.", autocompletion=complete_key
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder to write, empty or new.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files of a folder that is not empty.")] = False,
    results: ResultsOption = Path("results"),
) -> None:
    """Write a trained Decision Transformer for Hugging Face's transformers.

    DecisionTransformerModel.from_pretrained(FOLDER) loads it and predicts the
    same actions. dtbench.json beside the weights has what acting needs besides:
    mean and standard deviation of observations, the scale of returns and the
    context. `algorithm: dt_pretrained` with `path: FOLDER` judges it here.
    """
    from dtbench.decision_transformer.agent import DecisionTransformerLearner
    from dtbench.decision_transformer.huggingface import write_folder
    from dtbench.execution.policy import load_policy

    policy = load_policy(results, key)
    if not isinstance(policy.learner, DecisionTransformerLearner):
        raise InvalidValue(f"trial {key} is no Decision Transformer, but {policy!r}. Name a trial of `dt`.")
    write_folder(policy.learner, out, about={"task": policy.task.name, "trial": policy.name}, force=force)
    typer.echo(str(out.resolve()))


@export_app.command()
def tensorboard(out: OutOption, suite: SuitesOption = None, results: ResultsOption = Path("results")) -> None:
    """Write finished trials as event files of TensorBoard.

    One run a trial, FOLDER/<contender>/<task>/seed<seed>: what it logged while
    training, its scores and returns by target, its hyperparameters.
    To see it: tensorboard --logdir FOLDER
    """
    from dtbench.tracking.tensorboard import write_runs

    _export_runs(write_runs, suite or (), out, results)


@export_app.command()
def wandb(out: OutOption, suite: SuitesOption = None, results: ResultsOption = Path("results")) -> None:
    """Write finished trials as offline runs of Weights & Biases.

    One run a trial: what it logged while training, its scores and returns by
    target, its hyperparameters. Nothing leaves this machine; to upload it:
    wandb sync FOLDER/wandb/offline-run-*
    """
    from dtbench.tracking.wandb import write_runs

    _export_runs(write_runs, suite or (), out, results)


@export_app.command()
def mlflow(out: OutOption, suite: SuitesOption = None, results: ResultsOption = Path("results")) -> None:
    """Write finished trials as runs of MLflow in a local database.

    One experiment a suite, one run a trial: what it logged while training, its
    scores and returns by target, its hyperparameters. To see it:
    mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db
    """
    from dtbench.tracking.mlflow import write_runs

    _export_runs(write_runs, suite or (), out, results)


def _export_runs(write_runs: Callable[[Any, Path], None], suites: Sequence[str], out: Path, results: Path) -> None:
    """Write each finished trial of these suites, or of all, once; print how many there are."""
    from dtbench.analysis.results_directory import load_results
    from dtbench.tracking.runs import run_of

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidValue(f"{out} is not an empty folder. Name another --out: runs are written once.")
    found = load_results(results, suites)
    warn_left_out(line for one in found for line in one.damaged)
    records = {record.spec.key: record for one in found for record in one.records}
    write_runs([run_of(record) for record in records.values()], out)
    typer.echo(f"{out.resolve()}: {len(records)} runs")
