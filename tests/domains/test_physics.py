from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from dtbench.domains.d4rl import physics
from dtbench.domains.d4rl.env_specs import LOCOMOTION_ENVS, PHYSICS, Physics
from dtbench.errors import InvalidValue, UnknownName

GYMNASIUMS = ("halfcheetah", "hopper", "walker2d")  # the robots that D4RL's physics changed
GOLDEN = Path(__file__).parent / "golden_rollouts.npz"
GOLDEN_STEPS = 30

TWO_CAPSULES = """
<mujoco>
  <compiler inertiafromgeom="true" {compiler}/>
  <default><geom density="1000"/></default>
  <worldbody>
    <geom type="plane" size="9 9 1" margin="0.004"/>
    <body name="one" pos="0 0 2"><freejoint/>
      <geom type="capsule" fromto="0 0 -0.2 0 0 0.2" size="0.1" margin="0.002"/>
    </body>
    <body name="two" pos="3 0 2"><freejoint/>
      <geom type="capsule" fromto="-0.5 0 -0.2 -0.5 0 0.2" size="0.1"/>
      <geom type="capsule" fromto="0.5 0 -0.2 0.5 0 0.2" size="0.1"/>
    </body>
    <body name="ball" pos="0 3 2"><freejoint/><geom type="sphere" size="0.1"/></body>
    <body name="mixed" pos="0 6 2"><freejoint/>
      <geom type="capsule" fromto="-0.5 0 -0.2 -0.5 0 0.2" size="0.1"/><geom type="sphere" pos="0.5 0 0" size="0.1"/>
    </body>
    <body name="box" pos="3 3 2"><freejoint/>
      <geom type="box" size="0.1 0.2 0.3"/><geom type="capsule" fromto="0 0 -0.2 0 0 0.2" size="0.1"/>
    </body>
    <body name="empty" pos="6 3 2"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><freejoint/></body>
  </worldbody>
</mujoco>
"""


def compiled(compiler: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(TWO_CAPSULES.format(compiler=compiler))


def inertia_of(model: mujoco.MjModel, body: int) -> NDArray[np.float64]:
    """The body's inertia tensor about its centre, in its own frame."""
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.body_iquat[body])
    turned = rotation.reshape(3, 3)
    tensor: NDArray[np.float64] = turned @ np.diag(model.body_inertia[body]) @ turned.T
    return tensor


def rollout(robot: str, version: Physics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Observations and rewards of 30 fixed actions from a fixed state; no random number is drawn."""
    env = LOCOMOTION_ENVS[robot].make(version)
    env.reset(seed=0)
    places = np.arange(1, env.model.nq + 1)
    env.data.mocap_pos[:, :2] = [0.5, 0.6]  # Reacher2d's goal; no other robot has a mocap body
    env.set_state(env.init_qpos + 0.005 * np.sin(places), 0.01 * np.cos(np.arange(env.model.nv)))
    observations, rewards = [], []
    for step in range(GOLDEN_STEPS):
        observation, reward, *_ = env.step(np.sin(0.7 * step + np.arange(env.model.nu)).astype(np.float32))
        observations.append(observation)
        rewards.append(reward)
    return np.array(observations, np.float64), np.array(rewards, np.float64)


def golden(robot: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What MuJoCo 3.4.0 gave under physics "d4rl"."""
    with np.load(GOLDEN) as file:
        return file[f"{robot}_observations"], file[f"{robot}_rewards"]


def deviation(robot: str, version: Physics) -> float:
    """The largest difference of observations and rewards from the golden rollout."""
    pairs = zip(rollout(robot, version), golden(robot), strict=True)
    return max(float(np.abs(now - then).max()) for now, then in pairs)


@pytest.mark.parametrize("robot", GYMNASIUMS)
def test_the_exact_capsule_gives_the_compiled_bodies(robot: str) -> None:
    model = LOCOMOTION_ENVS[robot].make("v4").model
    solids = {body: physics.solid_of(model, body, legacy=False) for body in range(1, model.nbody)}
    # HalfCheetah's mass is fixed at 14: only then is the density not the XML's 1000.
    volume = sum(solid.volume for solid in solids.values() if solid is not None)
    density = 14 / volume if robot == "halfcheetah" else 1000
    for body, solid in solids.items():
        assert solid is not None
        np.testing.assert_allclose(density * solid.volume, model.body_mass[body], rtol=0, atol=1e-12)
        np.testing.assert_allclose(density * solid.inertia, inertia_of(model, body), rtol=0, atol=1e-12)
        np.testing.assert_allclose(solid.centre, model.body_ipos[body], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("robot", "mass"), [("hopper", 15.265), ("walker2d", 22.698), ("halfcheetah", 14.0)])
def test_corrected_robots_weigh_what_mujoco_pys_weighed(robot: str, mass: float) -> None:
    assert LOCOMOTION_ENVS[robot].make("d4rl").model.body_mass.sum() == pytest.approx(mass, abs=1e-5)


@pytest.mark.parametrize(("robot", "mass"), [("hopper", 15.820), ("walker2d", 23.677), ("halfcheetah", 14.0)])
@pytest.mark.parametrize("version", ["v4", "v5"])
def test_gymnasiums_robots_stay_as_they_are(robot: str, mass: float, version: Physics) -> None:
    assert LOCOMOTION_ENVS[robot].make(version).model.body_mass.sum() == pytest.approx(mass, abs=5e-4)


def test_halfcheetahs_bodies_weigh_what_mujoco_py_printed() -> None:
    known = [6.36031332, 1.53524804, 1.58093995, 1.0691906, 1.42558747, 1.17885117, 0.84986945]
    np.testing.assert_allclose(
        LOCOMOTION_ENVS["halfcheetah"].make("d4rl").model.body_mass[1:], known, rtol=0, atol=5e-9
    )


@pytest.mark.parametrize("robot", LOCOMOTION_ENVS)
def test_every_environment_has_a_fresh_model_so_that_nothing_is_corrected_twice(robot: str) -> None:
    first, second = LOCOMOTION_ENVS[robot].make("d4rl").model, LOCOMOTION_ENVS[robot].make("d4rl").model
    for field in ("body_mass", "body_inertia", "body_ipos", "body_iquat", "geom_margin"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


def test_a_model_that_was_restored_before_is_refused() -> None:
    model = compiled()
    physics.restore_d4rl_physics(model)
    with pytest.raises(InvalidValue, match=r"body 'one' .* restored before"):
        physics.restore_d4rl_physics(model)


def test_an_inertia_that_the_xml_gives_is_not_overwritten() -> None:
    given = TWO_CAPSULES.replace('inertiafromgeom="true"', "").replace(
        '<body name="one" pos="0 0 2">',
        '<body name="one" pos="0 0 2"><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>',
    )
    with pytest.raises(InvalidValue, match="body 'one'"):
        physics.restore_d4rl_physics(mujoco.MjModel.from_xml_string(given.format(compiler="")))


def test_physics_that_do_not_exist_are_refused_with_those_that_do() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'd4rl'"):
        LOCOMOTION_ENVS["hopper"].make("d4r")  # type: ignore[arg-type]


def test_a_capsule_counts_as_a_longer_cylinder() -> None:
    # r = 0.1, h = 0.2: a cylinder of half-length 0.25. Volume 0.01 pi 0.5 = 0.005 pi. About its axis V r² / 2 =
    # 0.000025 pi, across V (3 r² + 0.5²) / 12 = 0.005 pi 0.28 / 12.
    solid = physics.solid_of(compiled(), 1, legacy=True)
    assert solid is not None
    assert solid.volume == pytest.approx(0.005 * np.pi)
    np.testing.assert_allclose(solid.inertia, np.pi * np.diag([0.0014 / 12, 0.0014 / 12, 0.000025]), atol=1e-15)
    np.testing.assert_allclose(solid.centre, 0, atol=1e-15)


def test_the_density_is_the_one_that_the_model_was_compiled_with() -> None:
    model = compiled()
    physics.restore_d4rl_physics(model)
    assert model.body_mass[1] == pytest.approx(1000 * 0.005 * np.pi)
    np.testing.assert_allclose(np.sort(model.body_inertia[1]), np.pi * np.array([0.025, 1.4 / 12, 1.4 / 12]))


def test_two_geoms_add_up_by_the_parallel_axis_theorem() -> None:
    # Each of the two lies 0.5 off along x: V 0.5² more about y and z, nothing more about x.
    model = compiled()
    physics.restore_d4rl_physics(model)
    assert model.body_mass[2] == pytest.approx(10 * np.pi)
    about_x, about_z = 2 * np.pi * 1.4 / 12, 2 * np.pi * 0.025 + 10 * np.pi * 0.25
    about_y = about_x + 10 * np.pi * 0.25
    np.testing.assert_allclose(inertia_of(model, 2), np.diag([about_x, about_y, about_z]), atol=1e-12)


def test_a_sphere_weighs_the_same_beside_a_capsule() -> None:
    # The capsule's 0.005 pi at x = -0.5, the sphere's 4/3 0.001 pi at 0.5: the centre is at (4/3 - 5) / (4/3 + 5) / 2.
    model = compiled()
    physics.restore_d4rl_physics(model)
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, "mixed")
    assert model.body_mass[body] == pytest.approx((5 + 4 / 3) * np.pi)
    np.testing.assert_allclose(model.body_ipos[body], [-11 / 38, 0, 0], atol=1e-12)


def test_spheres_and_bodies_of_other_shapes_stay_as_they_are() -> None:
    before, model = compiled(), compiled()
    physics.restore_d4rl_physics(model)
    for name in ("ball", "box", "empty"):
        body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
        np.testing.assert_allclose(model.body_mass[body], before.body_mass[body], rtol=1e-12)
        np.testing.assert_allclose(inertia_of(model, body), inertia_of(before, body), atol=1e-12)
        np.testing.assert_allclose(model.body_ipos[body], before.body_ipos[body], atol=1e-15)


def test_a_fixed_total_mass_scales_masses_and_inertias() -> None:
    free, fixed = compiled(), compiled()
    physics.restore_d4rl_physics(free)
    physics.restore_d4rl_physics(fixed, total_mass=7.0)
    assert fixed.body_mass.sum() == pytest.approx(7.0)
    scale = 7.0 / free.body_mass.sum()
    np.testing.assert_allclose(fixed.body_mass, free.body_mass * scale)
    np.testing.assert_allclose(fixed.body_inertia, free.body_inertia * scale)


def test_the_xml_says_which_total_mass_it_fixes() -> None:
    fixed = {
        robot: physics.fixed_total_mass(Path(LOCOMOTION_ENVS[robot].make("v4").fullpath)) for robot in LOCOMOTION_ENVS
    }
    assert fixed == {"halfcheetah": 14.0, "hopper": None, "walker2d": None, "reacher2d": None}


@pytest.mark.parametrize(
    ("version", "margins"),
    [("2.3.7", (0.004, 0.002)), ("3.4.0", (0.004, 0.002)), ("3.5.0", (0.002, 0.001)), ("4.0.0", (0.002, 0.001))],
)
def test_margins_are_halved_only_where_mujoco_adds_them(
    monkeypatch: pytest.MonkeyPatch, version: str, margins: tuple[float, float]
) -> None:
    monkeypatch.setattr(mujoco, "__version__", version)
    model = compiled()
    physics.restore_d4rl_physics(model)
    assert tuple(model.geom_margin[:2]) == pytest.approx(margins)


@pytest.mark.parametrize("robot", GYMNASIUMS)
def test_principal_axes_and_moments_make_up_the_inertia(robot: str) -> None:
    before, model = LOCOMOTION_ENVS[robot].make("v4").model, LOCOMOTION_ENVS[robot].make("d4rl").model
    solids = [physics.solid_of(before, body, legacy=True) for body in range(1, before.nbody)]
    scale = 14 / sum(s.volume for s in solids if s is not None) if robot == "halfcheetah" else 1000
    for body, solid in enumerate(solids, start=1):
        assert solid is not None
        np.testing.assert_allclose(inertia_of(model, body), scale * solid.inertia, rtol=0, atol=1e-12)
        assert np.linalg.norm(model.body_iquat[body]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("robot", LOCOMOTION_ENVS)
def test_the_correction_moves_no_geom(robot: str) -> None:
    # MuJoCo reads a geom that shares its body's inertial frame off that frame, which the correction turns. A capsule
    # may be turned end to end or about its axis: that is the same capsule.
    before, after = LOCOMOTION_ENVS[robot].make("v4"), LOCOMOTION_ENVS[robot].make("d4rl")
    for env in (before, after):
        env.set_state(env.init_qpos + np.sin(np.arange(env.model.nq)), env.init_qvel)
    np.testing.assert_allclose(after.data.geom_xpos, before.data.geom_xpos, atol=1e-12)
    capsules = before.model.geom_type == physics.CAPSULE
    axes = [env.data.geom_xmat.reshape(-1, 3, 3)[capsules, :, 2] for env in (before, after)]
    np.testing.assert_allclose(np.abs(np.einsum("gi,gi->g", *axes)), 1, atol=1e-12)


@pytest.mark.parametrize("robot", LOCOMOTION_ENVS)
def test_a_rollout_is_the_same_with_every_mujoco(robot: str) -> None:
    assert golden(robot)[0].shape == (GOLDEN_STEPS, LOCOMOTION_ENVS[robot].observation_size)
    assert deviation(robot, "d4rl") < 1e-6


@pytest.mark.parametrize("robot", GYMNASIUMS)
def test_the_golden_rollout_tells_d4rls_physics_from_v4s(robot: str) -> None:
    assert deviation(robot, "v4") > 1e-2


@pytest.mark.parametrize(("robot", "name"), [("halfcheetah", "HalfCheetah"), ("hopper", "Hopper")])
def test_the_correction_serves_any_gymnasium_environment(robot: str, name: str) -> None:
    env = gym.make(f"{name}-v5")
    total_mass = physics.fixed_total_mass(Path(env.unwrapped.fullpath))  # type: ignore[attr-defined]
    physics.restore_d4rl_physics(env.unwrapped.model, total_mass=total_mass)  # type: ignore[attr-defined]
    ours = LOCOMOTION_ENVS[robot].make("d4rl").model
    np.testing.assert_array_equal(env.unwrapped.model.body_mass, ours.body_mass)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(env.unwrapped.model.geom_margin, ours.geom_margin)  # type: ignore[attr-defined]


@pytest.mark.parametrize("robot", LOCOMOTION_ENVS)
@pytest.mark.parametrize("version", PHYSICS)
def test_every_robot_has_the_spaces_that_it_declares(robot: str, version: Physics) -> None:
    env = LOCOMOTION_ENVS[robot].make(version)
    assert env.observation_space.shape == LOCOMOTION_ENVS[robot].observation_space.shape
    assert env.action_space == LOCOMOTION_ENVS[robot].action_space
