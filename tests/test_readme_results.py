"""README's table of results is that of the committed report: `python -m tests.test_readme_results` prints it anew."""

import csv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ANSWER = ROOT / "report" / "overview" / "tables" / "answer.csv"
HEAD = """\
| task | DT | best TD learner | DT less it | best imitation | DT less it |
| --- | ---: | ---: | :--- | ---: | :--- |"""
SEEDS = 5  # without which no verdict is given
MARKS = {"not converged": " †", "undecided": ""}


def table() -> str:
    """Return the tasks of the report's answer that have five seeds, with both kinds of rivals side by side."""
    return "\n".join([HEAD, *_lines()])


def test_readme_has_the_numbers_of_the_report() -> None:
    expected, readme = table(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert expected in readme, f"README has another table of results than the report. It should be:\n{expected}"


def _lines() -> Iterator[str]:
    with ANSWER.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["Seeds"]) >= SEEDS]
    families: dict[str, dict[str, dict[str, str]]] = {"TD learning": {}, "imitation": {}}
    for row in rows:
        families[row["Family"]][row["Task"]] = row
    for task, against_td in families["TD learning"].items():
        cells = [task.removesuffix("-v2"), f"{float(against_td['Our score']):.1f}"]
        for row in (against_td, families["imitation"][task]):
            cells += [f"{row['Rival']} {float(row['Its score']):.1f}", _difference(row)]
        yield f"| {' | '.join(cells)} |"


def _difference(row: dict[str, str]) -> str:
    middle, low, high = (float(row[name]) for name in ("Difference", "95% low", "95% high"))
    verdict = MARKS.get(row["Verdict"], f" **{row['Verdict']}**")
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]{verdict}"


if __name__ == "__main__":
    print(table())
