"""Reference pages of the documentation, written from the code each time that the documentation is built.

A page holds a line `<!-- generated: NAME -->`; `fill` puts the Markdown of that name in its place.
"""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from typer.main import get_command

from dtbench import registry
from dtbench.analysis import archive
from dtbench.analysis.results import COLUMNS
from dtbench.cli.run import app
from dtbench.domains.atari.tasks import atari_task
from dtbench.domains.d4rl.tasks import gym_task
from dtbench.domains.gymnasium.tasks import task_from_id
from dtbench.ledger.store import TrialRecord
from dtbench.ledger.trial_spec import EvaluationSpec, TrialSpec
from dtbench.suite.loading import suite_names
from dtbench.suite.schema import Contender, ContenderSettings, Evaluation, Resources, Suite, TaskSettings
from dtbench.task import DataSource, Task

MARK = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)

MEANINGS = {  # of the columns of results/scores/<suite>.csv
    "suite": "the suite's name",
    "task": "the task's name",
    "contender": "the row of the table",
    "algorithm": "a registered name, or `file_or_module:Class`",
    "seed": "of training",
    "step": "gradient steps done at this evaluation",
    "target": "the return asked for; empty for a learner that takes none",
    "action_mode": "greedy, sample or epsilon_greedy",
    "episodes": "played for this row",
    "return_mean": "mean undiscounted return",
    "return_std": "its standard deviation over the episodes of the row (population)",
    "achieved_mean": "mean return in the units of the targets; only in suites where these are not the environment's",
    "length_mean": "mean steps of an episode",
    "score": "mean score, on the task's own scale",
    "dataset_source": "where the data came from: d4rl, generated, file, ...",
    "dataset_digest": "sha256 of the data",
    "trial": "the trial's key",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One field of a class, as its source says it."""

    name: str
    type: str
    default: str  # "" where there is none
    comment: str


def fill(page: str) -> str:
    """Put generated Markdown in the place of every mark; raise KeyError for a name that nobody generates."""
    return MARK.sub(lambda match: GENERATED[match[1]](), page)


def cli() -> str:
    """Every command with its arguments and options."""
    return "\n".join(_command("dtbench", get_command(app)))


def suite_file() -> str:
    """The keys of a suite's file, model by model."""
    models: tuple[type[Any], ...] = (Suite, Contender, ContenderSettings, Evaluation, TaskSettings, Resources)
    hidden = {"preset", "overrides"}
    return "\n".join(_class(model, hidden) for model in models)


def task_options() -> str:
    """What `task_options` may hold, by kind of task."""
    makers: dict[str, Callable[..., Any]] = {
        "D4RL's tasks, e.g. `hopper-medium-v2`": gym_task,
        "`atari:GAME`": atari_task,
        "`gym:ID`": task_from_id,
    }
    return "\n".join(_options(title, maker) for title, maker in makers.items())


def algorithms() -> str:
    """Every registered algorithm with its hyperparameters, defaults and presets."""
    return "\n".join(_algorithm(name) for name in registry.algorithm_names())


def ledger() -> str:
    """What a trial's spec and record hold."""
    return "\n".join(_class(found, set()) for found in (TrialSpec, EvaluationSpec, TrialRecord))


def columns() -> str:
    """The columns of the score tables."""
    return _table(("column", "meaning"), [(f"`{name}`", MEANINGS[name]) for name in COLUMNS])


def archive_files() -> str:
    """What lies beside a score table."""
    return str(archive.__doc__).strip()


def task_class() -> str:
    """The fields of a task, and of a source of its data."""
    return "\n".join(_class(found, set()) for found in (Task, DataSource))


def suites() -> str:
    """The suites that dtbench ships."""
    return ", ".join(f"`{name}`" for name in suite_names()) + "."


GENERATED: Mapping[str, Callable[[], str]] = {
    "cli": cli,
    "suite": suite_file,
    "task-options": task_options,
    "algorithms": algorithms,
    "ledger": ledger,
    "columns": columns,
    "archive": archive_files,
    "task": task_class,
    "suites": suites,
}


def entries_of(found: type[Any]) -> list[Entry]:
    """The annotated fields of a class and of those that it inherits from, with their comments."""
    entries: dict[str, Entry] = {}
    for owner in reversed(found.__mro__):
        if owner.__module__.split(".")[0] in ("dtbench", "baselines"):
            entries |= {entry.name: entry for entry in _own_entries(owner)}
    return list(entries.values())


def _own_entries(owner: type[Any]) -> Iterator[Entry]:
    source = textwrap.dedent(inspect.getsource(owner))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind = ast.unparse(node.annotation)
            if not kind.startswith("ClassVar") and not node.target.id.startswith("_"):
                lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                comment = " ".join(comments[line] for line in lines if line in comments)
                yield Entry(node.target.id, kind, _default(node.value), comment)


def _default(value: ast.expr | None) -> str:
    """A default as a reader writes it: what Field() and field() stand for."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("Field", "field"):
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if "default" in given:
            return ast.unparse(given["default"])
        return {"dict": "{}", "list": "[]"}.get(ast.unparse(given.get("default_factory", ast.Constant(""))), "")
    return "" if value is None else ast.unparse(value)


def _class(found: type[Any], hidden: set[str]) -> str:
    rows = [
        (f"`{e.name}`", _code(e.type), _code(e.default), e.comment) for e in entries_of(found) if e.name not in hidden
    ]
    text = inspect.cleandoc(found.__doc__ or "")
    return f"## {found.__name__}\n\n{text}\n\n{_table(('key', 'type', 'default', 'meaning'), rows)}\n"


def _algorithm(name: str) -> str:
    found: Any = registry.algorithm_class(name)
    said = {entry.name: entry for entry in entries_of(found)}
    rows = []
    for field in dataclasses.fields(found):
        entry = said[field.name]
        default = field.default if field.default is not dataclasses.MISSING else None
        rows.append((f"`{field.name}`", _code(entry.type), _code(repr(default)), entry.comment))
    presets = registry.algorithm_presets(name)
    named = "".join(f"* preset `{key}`: {_differences(values)}\n" for key, values in presets.items())
    about = inspect.cleandoc(found.__doc__ or "")
    where = f"`{found.__module__}:{found.__name__}`"
    return (
        f"## {name}\n\n{where}. {about}\n\n{named}\n{_table(('hyperparameter', 'type', 'default', 'meaning'), rows)}\n"
    )


def _differences(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}: {value}`" for key, value in values.items()) or "the defaults"


def _options(title: str, make: Callable[..., Any]) -> str:
    rows = [
        (f"`{name}`", _code(_annotation(parameter)), _code(repr(parameter.default)))
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "delayed"  # the task's own name says that
    ]
    about = inspect.cleandoc(make.__doc__ or "")
    return f"### {title}\n\n{about}\n\n{_table(('option', 'type', 'default'), rows)}\n"


def _annotation(parameter: inspect.Parameter) -> str:
    kind = parameter.annotation
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _command(path: str, command: Any) -> Iterator[str]:
    """A command as a section, then its subcommands."""
    subcommands: Mapping[str, Any] = getattr(command, "commands", {})
    if not subcommands:
        arguments = [p for p in command.params if getattr(p, "param_type_name", "") == "argument" or not _is_option(p)]
        usage = " ".join([path, *(_usage(p) for p in arguments)])
        yield f"## {path}\n\n```text\n{usage} [OPTIONS]\n```\n\n{inspect.cleandoc(command.help or '')}\n"
        yield _table(("argument or option", "default", "meaning"), [_parameter(p) for p in command.params]) + "\n"
    for name, found in subcommands.items():
        yield from _command(f"{path} {name}", found)


def _is_option(parameter: Any) -> bool:
    return any(name.startswith("-") for name in parameter.opts)


def _usage(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name.strip('[]')}]"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    names = [*parameter.opts, *parameter.secondary_opts] if _is_option(parameter) else [_usage(parameter)]
    more = " May be given several times." if getattr(parameter, "multiple", False) else ""
    default = "required" if parameter.required else _code(_plain_default(parameter))
    return ", ".join(f"`{name}`" for name in names), default, (parameter.help or "") + more


def _plain_default(parameter: Any) -> str:
    default = parameter.default
    return "" if default in (None, False) or callable(default) else str(default)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
