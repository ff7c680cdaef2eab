"""What trials on a graph recorded, where it is a graph's: a damaged file may hold anything."""

from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

LARGEST = 999  # of a node's number, and of the steps of a walk

Node = Annotated[int, Field(ge=0, le=LARGEST)]
Steps = Annotated[str, Field(pattern=r"^(inf|\d{1,3})$")]
_PATH = r"\d{1,3}(-\d{1,3})*"


class Recipe(BaseModel):
    """How the data of a task on a graph were made; empty where nothing, or nothing that fits, was recorded."""

    model_config = ConfigDict(strict=True, frozen=True)

    edges: list[Annotated[list[Node], Field(min_length=2, max_length=2)]] = []  # [from, to] each
    walk_steps_to_goal: dict[Steps, int] = {}
    shortest_steps: dict[Steps, int] = {}


def recipe(info: Any) -> Recipe:
    """Return the recipe that a trial recorded."""
    try:
        return Recipe.model_validate(info or {})
    except ValidationError:
        return Recipe()


def walks(episodes: pd.DataFrame) -> pd.DataFrame:
    """Return the episodes that are walks on a graph: reached, novel, start, shortest and length as numbers, a path."""
    columns = ("reached", "novel", "start", "shortest", "length")
    if not {*columns, "path"} <= set(episodes.columns):
        return episodes.iloc[:0]
    numbers = episodes[[*columns]].apply(pd.to_numeric, errors="coerce").astype(float)
    whole = ((numbers >= 0) & (numbers <= LARGEST) & (numbers % 1 == 0)).all(axis=1)
    flags = (numbers[["reached", "novel"]] <= 1).all(axis=1)
    is_path = episodes["path"].map(lambda path: isinstance(path, str)) & (
        episodes["path"].astype(str).str.fullmatch(_PATH)
    )
    fitting = whole & flags & is_path
    return episodes[fitting].assign(**numbers[fitting].astype(int))
