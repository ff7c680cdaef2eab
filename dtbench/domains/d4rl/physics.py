"""The physics that D4RL was recorded with: mujoco_py's masses of capsules and contact margins.

Until 2.1.2 MuJoCo took a capsule for a cylinder when it derived mass and inertia, and from 3.5 on it adds the margins
of two touching geoms, of which it took the larger before. Today's `-v4` and `-v5` robots therefore weigh more than
those of D4RL (Hopper 15.82 instead of 15.27), and policies of the one score differently on the other.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from dtbench.errors import InvalidValue

Vector = NDArray[np.float64]
CAPSULE, SPHERE = int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE)
ADDED_MARGINS = (3, 5)  # the first MuJoCo that adds the margins of two geoms


@dataclass(frozen=True, slots=True)
class Solid:
    """A body's volume, centre and inertia per unit of density, all in the body's frame."""

    volume: float
    centre: Vector  # [3]
    inertia: Vector  # [3, 3], about the centre


def restore_d4rl_physics(model: mujoco.MjModel, *, total_mass: float | None = None) -> None:
    """Set the model's masses, inertias and contact margins to those of mujoco_py, in place.

    A capsule of radius r and half-length h counts as a solid cylinder of half-length h + r/2; the density is the one
    that the compiled model implies. `total_mass` is what the XML fixes with `settotalmass`, to which everything is
    scaled back. Bodies without capsules, and those with geoms of other shapes than capsules and spheres, stay.
    Raises InvalidValue for a body whose inertia its geoms do not imply, as in a model that was restored before.
    """
    for body in range(1, model.nbody):
        compiled = solid_of(model, body, legacy=False)
        if compiled is not None:
            density = float(model.body_mass[body]) / compiled.volume
            check_implied(model, body, compiled, density)
            legacy = solid_of(model, body, legacy=True)
            assert legacy is not None
            set_inertia(model, body, legacy, density)
    if total_mass is not None:
        scale = total_mass / float(model.body_mass.sum())
        model.body_mass[:] *= scale
        model.body_inertia[:] *= scale
    if mujoco_version() >= ADDED_MARGINS:
        model.geom_margin[:] /= 2
    # MuJoCo 3 finds the geoms of a body that may touch by a tree of boxes in the body's inertial frame. That frame has
    # just been moved and the boxes cannot be, so contacts would be missed: HalfCheetah's head fell through the floor.
    if hasattr(mujoco.mjtDisableBit, "mjDSBL_MIDPHASE"):
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
    mujoco.mj_setConst(model, mujoco.MjData(model))


def solid_of(model: mujoco.MjModel, body: int, *, legacy: bool) -> Solid | None:
    """Return the solid that capsules and spheres make up; None for a body without capsule or of other geoms."""
    geoms = np.flatnonzero(model.geom_bodyid == body)
    types = set(map(int, model.geom_type[geoms]))
    if CAPSULE not in types or not types <= {CAPSULE, SPHERE}:
        return None
    volumes, centres, inertias = [], [], []
    for geom in geoms:
        radius, half = (float(size) for size in model.geom_size[geom][:2])
        if int(model.geom_type[geom]) == SPHERE:
            volume, principal = sphere(radius)
        else:
            volume, principal = cylinder(radius, half + radius / 2) if legacy else capsule(radius, half)
        rotation = np.zeros(9)
        mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
        turned = rotation.reshape(3, 3)
        volumes.append(volume)
        centres.append(np.array(model.geom_pos[geom]))
        inertias.append(turned @ np.diag(principal) @ turned.T)
    total = float(np.sum(volumes))
    centre = np.einsum("g,gi->i", np.array(volumes), np.array(centres)) / total
    inertia = np.zeros((3, 3))
    for volume, position, part in zip(volumes, centres, inertias, strict=True):
        offset = position - centre
        inertia += part + volume * (offset @ offset * np.eye(3) - np.outer(offset, offset))  # parallel axes
    return Solid(total, centre, inertia)


def check_implied(model: mujoco.MjModel, body: int, solid: Solid, density: float) -> None:
    """Raise InvalidValue unless the body's moments of inertia are the solid's."""
    implied = density * np.linalg.eigvalsh(solid.inertia)
    if not np.allclose(np.sort(model.body_inertia[body]), implied, rtol=1e-6, atol=0):
        raise InvalidValue(
            f"body {model.body(body).name!r} has moments of inertia {model.body_inertia[body].tolist()}, its geoms "
            f"imply {implied.tolist()}: the model was restored before, or its XML gives inertias or several "
            "densities. Restore a newly compiled model once."
        )


def set_inertia(model: mujoco.MjModel, body: int, solid: Solid, density: float) -> None:
    """Write the solid's mass, centre and principal inertia into the model."""
    moments, axes = np.linalg.eigh(solid.inertia)
    moments, axes = moments[::-1], axes[:, ::-1]  # the largest first, as MuJoCo sorts them
    if np.linalg.det(axes) < 0:
        axes = axes * np.array([1.0, 1.0, -1.0])
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(axes).ravel())
    model.body_mass[body] = density * solid.volume
    model.body_inertia[body] = density * moments
    model.body_iquat[body] = quaternion
    model.body_ipos[body] = solid.centre


def cylinder(radius: float, half: float) -> tuple[float, Vector]:
    """Return volume and principal inertia (about x, y, z = axis) of a solid cylinder of unit density."""
    volume = np.pi * radius**2 * 2 * half
    across = volume * (3 * radius**2 + (2 * half) ** 2) / 12
    return volume, np.array([across, across, volume * radius**2 / 2])


def sphere(radius: float) -> tuple[float, Vector]:
    """Return volume and principal inertia of a solid sphere of unit density."""
    volume = 4 / 3 * np.pi * radius**3
    return volume, np.full(3, 0.4 * volume * radius**2)


def capsule(radius: float, half: float) -> tuple[float, Vector]:
    """Return volume and principal inertia of a solid capsule of unit density, a cylinder between half spheres."""
    middle, inertia = cylinder(radius, half)
    ends = 4 / 3 * np.pi * radius**3
    shift = half + 3 / 8 * radius  # of a half sphere's centre of mass from the capsule's
    across = ends * (0.4 * radius**2 - (3 / 8 * radius) ** 2 + shift**2)
    return middle + ends, inertia + np.array([across, across, 0.4 * ends * radius**2])


def fixed_total_mass(xml: Path) -> float | None:
    """Return the `settotalmass` of the XML, or None."""
    compiler = ElementTree.parse(xml).getroot().find("compiler")
    mass = compiler.get("settotalmass") if compiler is not None else None
    return float(mass) if mass else None


def mujoco_version() -> tuple[int, int]:
    """Return major and minor version of MuJoCo."""
    major, minor = mujoco.__version__.split(".")[:2]
    return int(major), int(minor)
