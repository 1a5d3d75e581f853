"""Simulated cameras, and what happens without an off-screen OpenGL."""

from collections.abc import Iterator

import numpy as np
import pytest

from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import KITS
from aloha_runtime.sim import gl
from aloha_runtime.sim.model import build_model
from aloha_runtime.sim.render import Image, Renderer
from aloha_runtime.sim.world import World

CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")


@pytest.fixture(scope="module")
def world() -> World:
    return World("transfer_cube")


@pytest.fixture(scope="module")
def policy_camera(world: World) -> Iterator[Renderer]:
    with Renderer(world.model, 160, 120, "cam_high") as renderer:
        yield renderer


def red(picture: Image) -> np.ndarray:
    """Pixels (N, 2) as row and column that show the red cube."""
    red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
    return np.argwhere((red > 120) & (green < 60) & (blue < 60))


def test_the_policy_camera_sees_the_cube_wherever_it_lies(world: World, policy_camera: Renderer) -> None:
    world.reset(0)
    address = world.model.joint("red_box_joint").qposadr[0]
    qpos = world.snapshot().qpos
    centres = []
    for x in (0.0, 0.2):
        for y in (0.4, 0.6):
            qpos[address : address + 2] = x, y
            picture = policy_camera.render_qpos(qpos)
            assert picture.shape == (120, 160, 3)
            assert picture.dtype == np.uint8
            pixels = red(picture)
            assert len(pixels) >= 40
            centres.append(pixels.mean(axis=0))
    front_left, back_left, front_right, back_right = centres
    assert front_right[1] - front_left[1] > 30
    assert front_left[0] - back_left[0] > 20
    assert back_right[1] - back_left[1] > 25


@pytest.mark.parametrize("heavy_meshes", [True, False])
def test_a_model_built_elsewhere_gives_the_same_picture(
    world: World, policy_camera: Renderer, heavy_meshes: bool
) -> None:
    world.reset(3)
    snapshot = world.snapshot()
    kit = KITS["aloha"]
    model = build_model("transfer_cube", kit.follower_gripper, kit.gripper_current_ma, heavy_meshes=heavy_meshes)
    with Renderer(model, 160, 120, "cam_high") as other:
        np.testing.assert_array_equal(other.render(snapshot), policy_camera.render(snapshot))


def test_pictures_follow_the_world_and_not_the_other_way_round(world: World, policy_camera: Renderer) -> None:
    world.reset(3)
    before = policy_camera.render(world.snapshot())
    angles = world.angles()
    np.testing.assert_array_equal(policy_camera.render(world.snapshot()), before)
    np.testing.assert_array_equal(world.angles(), angles)
    world.reset(4)
    assert (policy_camera.render(world.snapshot()) != before).any()


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera_of_the_rig_shows_something(world: World, camera: str) -> None:
    world.reset(3)
    with Renderer(world.model, 320, 240, camera) as renderer:
        picture = renderer.render(world.snapshot())
    assert picture.shape == (240, 320, 3)
    assert picture.std() > 10


def test_the_report_shows_what_the_policy_camera_leaves_out(world: World) -> None:
    world.reset(3)
    pictures = []
    for report in (False, True):
        with Renderer(world.model, 320, 240, "cam_high", report=report) as renderer:
            pictures.append(renderer.render(world.snapshot()).astype(int))
    assert (np.abs(pictures[1] - pictures[0]).max(axis=2) > 20).mean() > 0.01


def test_an_unknown_camera_is_named(world: World) -> None:
    with pytest.raises(SimulationError, match=r"no camera 'cam_belly'.*cam_high"):
        Renderer(world.model, 160, 120, "cam_belly")


def test_no_opengl_is_one_message_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl, "BACKENDS", ("bogus",))
    with pytest.raises(SimulationError, match=r"no off-screen OpenGL.*bogus: .*apt-get install -y libegl1") as caught:
        gl.ensure_gl.__wrapped__()
    assert "\n" not in str(caught.value)


def test_a_backend_asked_for_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    with pytest.raises(SimulationError, match="unset MUJOCO_GL, which asks for bogus"):
        gl.ensure_gl.__wrapped__()


def test_the_second_backend_is_taken_when_the_first_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    works = gl.ensure_gl()
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(gl, "BACKENDS", ("bogus", works))
    assert gl.ensure_gl.__wrapped__() == works
