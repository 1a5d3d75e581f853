"""The report's video: the episode rendered again, in full quality, from the world's logged states."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.commands.observe import Log
from aloha_runtime.data.video_encoder import Codec, VideoEncoder
from aloha_runtime.messages import SimState
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.robot import KITS
from aloha_runtime.sim.model import build_model
from aloha_runtime.sim.render import Image, Renderer

FPS = 25
"""Every second 50 Hz tick: rendering, not the eye, is what takes time."""
VIEWS = ("overview", "cam_high")
"""Side by side: where an operator stands, and the camera of most policies."""
WIDTH, HEIGHT = 640, 480
CODEC = Codec("h264", "libx264", 25, 24, {"preset": "veryfast"})
"""Plays in every browser; a key frame each second, so that jumping about is quick."""
WHITE, GREY = (235, 235, 235), (160, 160, 160)


def render_video(log: Log, path: Path, progress: Callable[[float], None] = lambda share: None) -> None:
    """Write the episode as H.264 MP4 (2 x 640 by 480, 25 frames a second); `progress` hears the share that is done.

    Raises SimulationError when there is no off-screen OpenGL, DatasetError when the file cannot be written.
    """
    frames = frames_at(log.sim, FPS)
    model = build_model(log.task, KITS[log.rig.kit].follower_gripper, log.rig.current_ma())  # type: ignore[arg-type]
    encoder = VideoEncoder(path, HEIGHT, WIDTH * len(VIEWS), FPS, CODEC)
    try:
        with ExitStack() as opened:
            cameras = [opened.enter_context(Renderer(model, WIDTH, HEIGHT, view, report=True)) for view in VIEWS]
            for index, state in enumerate(frames):
                picture = np.hstack([camera.render_qpos(state.qpos) for camera in cameras])
                encoder.put(_captioned(picture, state, (state.stamp_ns - log.start_ns) / NS_PER_S))
                progress((index + 1) / len(frames))
    except BaseException:
        encoder.discard()
        raise
    encoder.finish()


def frames_at(states: Sequence[SimState], fps: int) -> list[SimState]:
    """The state shown at each frame: the newest one not after it. Empty when there are no states."""
    if not states:
        return []
    stamps = np.array([state.stamp_ns for state in states])
    moments = np.arange(stamps[0], stamps[-1] + 1, NS_PER_S // fps)
    return [states[index] for index in np.searchsorted(stamps, moments, side="right") - 1]


def _captioned(picture: NDArray[np.uint8], state: SimState, time_s: float) -> Image:
    """Time and stage in the top corners, in place."""
    for index, view in enumerate(VIEWS):
        _write(picture, view, (WIDTH * index + 16, 28), GREY)
    _write(picture, f"{time_s:5.2f} s   stage {state.stage}", (WIDTH - 190, 28), WHITE)
    return picture


def _write(picture: NDArray[np.uint8], text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, 1, cv2.LINE_AA)
