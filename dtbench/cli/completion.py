"""Shell completion of names: suites, their presets, contenders and tasks, and keys of trials."""

from pathlib import Path

import typer


def complete_suite(incomplete: str) -> list[str]:
    """Return the suites whose names begin so."""
    from dtbench.suite import package_data

    names = sorted({Path(name).stem for name in package_data.names("sweeps") if name.endswith((".yaml", ".yml"))})
    return [name for name in names if name.startswith(incomplete)]


def complete_preset(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the presets of the suite on the command line."""
    return _named_in(ctx, "presets", incomplete)


def complete_contender(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the contenders of the suite on the command line."""
    return _named_in(ctx, "contenders", incomplete)


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the tasks of the suite on the command line."""
    return _named_in(ctx, "tasks", incomplete)


def complete_key(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the keys of the trials in the results directory."""
    results = Path(ctx.params.get("results") or "results")
    keys = sorted({path.parent.name.rpartition("-")[2] for path in results.glob("runs/*/*/spec.json")})
    return [key for key in keys if key.startswith(incomplete)]


def _named_in(ctx: typer.Context, part: str, incomplete: str) -> list[str]:
    from dtbench.errors import DtbenchError
    from dtbench.suite.loading import read_document

    suite = ctx.params.get("suite")
    name = suite[0] if isinstance(suite, list) and suite else suite
    try:
        known = read_document(name).get(part) if isinstance(name, str) else None
    except DtbenchError:  # a suite that does not exist is named when the command runs
        return []
    return [one for one in known or () if isinstance(one, str) and one.startswith(incomplete)]
