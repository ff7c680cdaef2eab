"""Films of episodes: a vector environment that is drawn while the evaluator plays it, as .mp4 or .gif."""

import base64
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from dtbench.data.files import atomic_path
from dtbench.errors import IncompatibleTask, InvalidValue

FORMATS = (".mp4", ".gif")
MOST_PER_SECOND = 30  # frames of a film; what plays faster is drawn at every second, third, ... step

OnFrame = Callable[[Any], None]  # [height, width, 3]


@dataclass(frozen=True, slots=True)
class Film:
    """The film of one episode."""

    path: Path
    target_return: float | None  # None: of a policy without target returns
    episode_return: float
    length: int  # steps

    def __str__(self) -> str:
        asked = "" if self.target_return is None else f"target return {self.target_return:g}, "
        return f"{self.path}: {asked}return {self.episode_return:g} in {self.length} steps"

    def _repr_html_(self) -> str:
        content = base64.b64encode(self.path.read_bytes()).decode()
        if self.path.suffix.lower() == ".gif":
            return f'<img src="data:image/gif;base64,{content}" alt="{self}">'
        return f'<video controls loop src="data:video/mp4;base64,{content}"></video>'


class Filmed(VectorWrapper):
    """A vector environment whose first episode is drawn at its beginning and after its steps."""

    def __init__(self, env: VectorEnv[Any, Any, Any], on_frame: OnFrame) -> None:
        """Call `on_frame` with the picture of every `every`-th step."""
        super().__init__(env)
        self.on_frame, self.steps = on_frame, 0
        self.every = math.ceil(frames_per_second(env) / MOST_PER_SECOND)

    def reset(self, **kwargs: Any) -> Any:
        """Reset, and draw."""
        outcome = self.env.reset(**kwargs)
        self._draw()
        return outcome

    def step(self, actions: Any) -> Any:
        """Step, and draw; the last step always."""
        outcome = self.env.step(actions)
        self.steps += 1
        if self.steps % self.every == 0 or outcome[2][0] or outcome[3][0]:
            self._draw()
        return outcome

    def _draw(self) -> None:
        try:
            frames: Any = self.env.render()
        except NotImplementedError:
            frames = None
        if not frames:
            raise IncompatibleTask(f"{type(self.env).__name__} draws no pictures: its render() returns none.")
        self.on_frame(frames[0])


def frames_per_second(env: VectorEnv[Any, Any, Any]) -> float:
    """Return the steps of a second at the environment's own speed."""
    return float(getattr(env, "frames_per_second", None) or env.metadata.get("render_fps") or MOST_PER_SECOND)


def check_film(path: Path) -> Path:
    """Return the path; raise InvalidValue where its suffix is none of FORMATS, or nothing here writes .mp4."""
    if path.suffix.lower() not in FORMATS:
        raise InvalidValue(f"{path}: a film's suffix is one of {', '.join(FORMATS)}.")
    if path.suffix.lower() == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise InvalidValue(f"{path}: .mp4 needs imageio-ffmpeg. Run `pip install imageio-ffmpeg`, or name a .gif.")
    return path


@contextmanager
def film_writer(path: Path, per_second: float) -> Iterator[OnFrame]:
    """Yield the function that takes the frames of a film; the file is there once the block has ended.

    Raises InvalidValue where it cannot be written.
    """
    suffix = check_film(path).suffix.lower()
    shown = per_second / math.ceil(per_second / MOST_PER_SECOND)
    options: dict[str, Any] = {"duration": 1000 / shown, "loop": 0}
    if suffix == ".mp4":
        options = {"fps": shown, "macro_block_size": 2, "codec": "libx264"}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"film{suffix}"
        writer: Any
        with imageio.get_writer(made, mode="I", **options) as writer:
            yield lambda frame: writer.append_data(_even(np.asarray(frame)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as written:
                written.write_bytes(made.read_bytes())
        except OSError as error:
            raise InvalidValue(f"cannot write {path}: {error.strerror or error}.") from error


def _even(frame: Any) -> Any:
    """Repeat the last row and column where their number is odd, which H.264 cannot encode."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
