"""Pictures of MuJoCo's environments where there is no display."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dtbench.domains.lockstep import Frame
from dtbench.errors import FOREIGN, IncompatibleTask, one_line

_CHOICE = "MUJOCO_GL"  # environment variable: glfw, egl or osmesa


def drawn(name: str, draw: Callable[[], Any]) -> Frame:
    """Return the picture that `draw` returns, [height, width, 3]; raise IncompatibleTask where it cannot."""
    try:
        with _offscreen():
            frame = draw()
    except FOREIGN as error:
        why = one_line(f"{type(error).__name__}: {error}", 200)
        raise IncompatibleTask(
            f"{name} cannot draw: {why}. MuJoCo needs OpenGL: install Mesa (libegl1, libgl1-mesa-dri), or "
            f"set {_CHOICE} to egl, osmesa or glfw."
        ) from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise IncompatibleTask(f"{name} draws {type(frame).__name__}, not an array [height, width, 3].")
    return np.ascontiguousarray(frame[..., :3], np.uint8)


@contextmanager
def _offscreen() -> Iterator[None]:
    """Let gymnasium draw with EGL within the block where the user chose nothing and there is no display.

    gymnasium would take GLFW, whose context cannot be used there.
    """
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if _CHOICE in os.environ or sys.platform != "linux" or display:
        yield
        return
    os.environ[_CHOICE] = "egl"
    try:
        yield
    finally:
        del os.environ[_CHOICE]
