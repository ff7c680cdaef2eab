"""Tests that draw MuJoCo's robots need OpenGL, which a machine without display may lack."""

from contextlib import closing

import pytest

from dtbench.domains.d4rl.env import LocomotionVectorEnv
from dtbench.domains.d4rl.env_specs import REACHER, locomotion_env
from dtbench.errors import IncompatibleTask


def _draws() -> bool:
    with closing(LocomotionVectorEnv(locomotion_env(REACHER), 1)) as env:
        env.reset(seed=0)
        try:
            env.render()
        except IncompatibleTask:
            return False
    return True


OPENGL = pytest.mark.skipif(not _draws(), reason="MuJoCo has no OpenGL here")
