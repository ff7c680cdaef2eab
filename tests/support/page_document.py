"""Documents for tests of the page, made up by hand: two suites whose tables and figures have the same names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dtbench.analysis.figures.style import Drawing, drawing, figure
from dtbench.analysis.figures.tooltips import draw_points
from dtbench.analysis.page.html import Document, SuitePage
from dtbench.analysis.page.overview import overview
from dtbench.analysis.page.section import Section
from dtbench.analysis.page.suite_page import suite_page
from dtbench.analysis.suite_analysis import analyze
from dtbench.analysis.tables.table import Cell, Column, Table, hole
from tests.support import gym_ledger
from tests.support.tiny_ledger import tiny_ledger

HOSTILE = "</script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\"> & \"q\""
NUMBERS = {"DT": 9.5, "BC": 100.25, "CQL": None, "IQL": -3.0, "TD3+BC": 20.0, "BC 10%": None, "Random": 1.0}
VERDICTS = ("agrees", "differs", "not run", "not comparable: other data", "agrees", "no published number", "differs")
CELL = "c0ffee00c0ffee00"


def scores(*, extra: str = "") -> Table:
    """Seven contenders: numbers that sort otherwise as text, two holes, and every verdict."""
    rows = [
        (
            Cell(name + extra),
            hole() if value is None else Cell(f"{value:.1f}", value, link=f"cell-{CELL}"),
            Cell(verdict, kind=verdict.partition(":")[0].replace(" ", "-")),
        )
        for (name, value), verdict in zip(NUMBERS.items(), VERDICTS, strict=True)
    ]
    columns = (Column("Contender"), Column("Score", number=True), Column("Verdict"))
    return Table("scores", "Scores & verdicts, 100 % of them", columns, tuple(rows), ("A note_with_underscore.",))


def curve(name: str = "targets-toy") -> Drawing:
    """Two lines of three points each, every point with its sentence."""
    with figure(False, 5, 3) as sheet:
        axes = sheet.subplots()
        for contender, values in {"DT": (1.0, 2.0, 2.5), "BC": (0.5, 0.6, 0.2)}.items():
            labels = [f"{contender} asked {x}: {value}, n = 3 seeds" for x, value in enumerate(values)]
            draw_points(axes, range(3), values, labels, marker="o", label=contender)
        axes.set_title(f"Return {'&'} target")
        return drawing(sheet, name, "Two lines & three points.", "Two lines of three points.")


def trials(count: int = 3, *, contender: str = "DT", steps: int = 3) -> dict[str, Any]:
    """Trials of one cell: the second failed, the third never ran, the others finished."""
    cell = {
        "task": "toy",
        "contender": contender,
        "algorithm": "dt",
        "version": "1",
        "train_steps": 100,
        "hyperparameters": {"rate": 1e-3, "model": {"num_layers": 2, "kind": contender}},
        "evaluation": {"episodes": 20, "every": 50},
        "task_options": {"physics": "mujoco"},
    }
    return {
        "cells": {CELL: cell},
        "trials": [_trial(seed, steps) for seed in range(count)],
        "provenance": [
            {
                "commit": "0123abc",
                "versions": {"python": "3.11", "torch": "2.0"},
                "device": "cpu",
                "platform": "Linux",
                "threads": 1,
                "dataset": {
                    "source": "generated",
                    "digest": "d" * 64,
                    "info": {"rule": HOSTILE},
                    "card": {"episodes": 10},
                },
            }
        ],
    }


def _trial(seed: int, steps: int) -> dict[str, Any]:
    state = {1: "failed", 2: "missing"}.get(seed, "done")
    done = state == "done"
    return {
        "key": f"{seed:016x}",
        "cell": CELL,
        "seed": seed,
        "state": state,
        "score": 9.5 + seed if done else None,
        "target": 1.0 if done else None,
        "step": 100 if done else None,
        "episodes": 20 if done else None,
        "curve": [[100 * step, step * 4.75 + seed] for step in range(steps)] if done else [],
        "metrics": {"loss": [[0, 1.0], [100, float("nan")], [200, 0.25]]} if done else {},
        "from": 0 if state != "missing" else None,
        "started": "2026-01-01T00:00:00Z" if done else None,
        "finished": "2026-01-01T00:01:00Z" if done else None,
        "seconds": 60.0 if done else None,
        "error": f"Traceback: {HOSTILE}" if state == "failed" else None,
    }


def suite(name: str = "toy", *, contender: str = "DT", count: int = 3, steps: int = 3) -> SuitePage:
    """A suite with a table of scores, a folded one, and two figures."""
    sections = (
        Section("Results", ("What came out.",), (scores(),), (curve(),)),
        Section("Behind", more=(curve("progress-toy"),)),
        Section("Details", (), (Table("seeds", "Seeds", (Column("Seed"),), ((Cell("0"),),)),), (), folded=True),
        Section("Results", ("The same heading again.",)),
    )
    facts = (("Preset", "cpu"), ("Trials finished", "1 of 3"))
    title = f"Suite {name}"
    return SuitePage(name, title, "Made up.", facts, "", sections, trials(count, contender=contender, steps=steps))


def document(*suites: SuitePage) -> Document:
    """An overview and two suites, or those that are given."""
    overview = (Section("At a glance", ("All suites together.",), (scores(extra=" (all)"),), (curve(),)),)
    return Document("Return-conditioned or not?", overview, suites or (suite("toy"), suite("toy-two")))


def answered(results: Path) -> Document:
    """The overview of a ledger with five seeds a side, beside a suite that is a check."""
    levels = {"DT": 60.0, "BC": 40.0, "IQL": 50.0, "CQL": 20.0}
    scores = {
        (f"task-{number}", name): tuple(level + shift for shift in (0.0, 0.5, 1.0, 1.5, 2.0))
        for number in range(6)
        for name, level in levels.items()
    }
    analysis = analyze(tiny_ledger(results, scores))
    sections = tuple(overview([replace(analysis, inputs=replace(analysis.inputs, statuses={}))]))
    return Document("Does it match?", sections, (suite("tiny"), replace(suite("checked"), group="checks")))


def gym(results: Path) -> Document:
    """The page of a suite of three tasks with all of its sections, as reports have it, beside another suite."""
    tasks = [task for task in gym_ledger.TASKS if task.startswith("hopper")]
    found = gym_ledger.results_of(results, suite={**gym_ledger.SUITE, "tasks": tasks})
    return Document("On a desk?", (), (suite_page(analyze(found)), suite("other")))


def hostile() -> Document:
    """Markup wherever a name or text may stand."""
    rows = ((Cell(HOSTILE), Cell(HOSTILE, 1.0, strong=True, kind="agrees", link=f"cell-{CELL}")),)
    table = Table("bad", HOSTILE, (Column(HOSTILE), Column(HOSTILE, number=True)), rows, (HOSTILE,))
    with figure(False, 4, 3) as sheet:
        axes = sheet.subplots()
        axes.set_title(HOSTILE)
        draw_points(axes, [0, 1], [0, 1], [HOSTILE, HOSTILE], marker="o")
        bad = drawing(sheet, "bad", HOSTILE, HOSTILE)
    sections = (Section(HOSTILE, (HOSTILE,), (table,), (bad,)),)
    page = SuitePage(HOSTILE, HOSTILE, HOSTILE, ((HOSTILE, HOSTILE),), HOSTILE, sections, trials(contender=HOSTILE))
    return Document(HOSTILE, sections, (page,))
