"""One picture of every camera of a rig, a labelled sheet of them, and how they compare with a dataset's cameras."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.commands.findings import Finding, fail, ok, warn
from aloha_runtime.config import CameraConfig, RigConfig
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import AlohaError, HardwareError
from aloha_runtime.hardware.base import Camera
from aloha_runtime.hardware.picture import staged, with_stage
from aloha_runtime.robot import KITS, pose_vector

Image = NDArray[np.uint8]

SETTLE_FRAMES = 10
"""Automatic exposure and white balance need some frames."""
FRAME_TIMEOUT_S = 1.0
TILE = (320, 240)
"""Width and height of a picture on the sheet."""
SMALL = (32, 24)
"""Width and height at which pictures are compared: layout, not detail."""
SAMPLES = 6
"""Frames of a dataset's camera that a live picture is compared with, from as many episodes."""
EXCHANGED = 0.10
"""So much more alike (sum of two correlations) must the exchanged pair be."""
ALIKE = 0.30
"""Pictures of one camera on different days correlate by 0.5 to 0.95; of two cameras by less than this, mostly."""


def take(rig: RigConfig, names: list[str]) -> tuple[dict[str, Image], list[Finding]]:
    """A picture (height, width, 3) RGB of each camera, and what is wrong with those that show none."""
    pictures: dict[str, Image] = {}
    findings = []
    for name in names:
        try:
            pictures[name] = _simulated(rig, name) if rig.sim is not None else live(name, rig.cameras[name])
            height, width, _ = pictures[name].shape
            findings.append(ok(f"cameras.{name}", f"shows a picture, {width}x{height}"))
        except AlohaError as error:
            findings.append(fail(f"cameras.{name}", str(error), "after that, `aloha doctor` again"))
    return pictures, findings


def live(name: str, config: CameraConfig) -> Image:
    """A picture of one real camera, once it has settled; HardwareError when it shows none."""
    camera = _open(name, config)
    try:
        camera.connect()
        frame = None
        for _ in range(SETTLE_FRAMES):
            frame = camera.read(FRAME_TIMEOUT_S) or frame
    finally:
        camera.disconnect()
    if frame is None:
        raise HardwareError(
            f"{name}: no frame within {SETTLE_FRAMES * FRAME_TIMEOUT_S:.0f} s; unplug it and plug it in"
        )
    return frame.image


def _open(name: str, config: CameraConfig) -> Camera:
    return with_stage(_source(name, config), config)


def _source(name: str, config: CameraConfig) -> Camera:
    if config.type == "realsense":
        from aloha_runtime.hardware.realsense import RealSenseCamera

        return RealSenseCamera(name, config)
    from aloha_runtime.hardware.opencv import OpenCVCamera

    return OpenCVCamera(name, config)


def _simulated(rig: RigConfig, name: str) -> Image:
    """The world as a start shows it: arms in the start pose, objects where the seed puts them."""
    from aloha_runtime.sim.model import build_model
    from aloha_runtime.sim.render import Renderer
    from aloha_runtime.sim.world import World

    assert rig.sim is not None, "asked for simulated cameras only"
    kit = KITS[rig.kit]
    world = World(rig.sim.task, rig.sim.seed or 0, kit)
    world.reset(rig.sim.seed or 0, pose_vector(rig.start_pose, kit.follower_gripper.angle_close))
    model = build_model(rig.sim.task, kit.follower_gripper, rig.current_ma(), heavy_meshes=False)
    camera = rig.cameras[name]
    with Renderer(model, camera.width, camera.height, name) as renderer:
        return staged(renderer.render(world.snapshot()), camera)


def sheet(pictures: Mapping[str, Image], path: Path) -> None:
    """All pictures side by side, two a row, each with its camera's name, as one PNG."""
    tiles = []
    for name, picture in pictures.items():
        tile = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), TILE, interpolation=cv2.INTER_AREA)
        cv2.rectangle(tile, (0, 0), (12 + 9 * len(name), 22), (0, 0, 0), cv2.FILLED)
        cv2.putText(tile, name, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    if len(tiles) % 2 and len(tiles) > 1:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[start : start + 2]) for start in range(0, len(tiles), 2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.vstack(rows)):
        raise AlohaError(f"{path} cannot be written: choose another place with --out")


def compare(pictures: Mapping[str, Image], path: Path) -> Iterator[Finding]:
    """Each live picture beside frames of every camera of the dataset at `path`: exchanged and moved cameras.

    Pictures are small, and compared by correlation, so that light and colour cast matter little. Raises DatasetError.
    """
    dataset = Dataset(path)
    there = [name for name in dataset.info.cameras if name in pictures]
    for name in sorted(set(dataset.info.cameras) ^ set(pictures)):
        where = "this rig" if name in dataset.info.cameras else f"the dataset {path}"
        yield warn(f"cameras.{name}.dataset", f"no camera of this name in {where}", "rename one of them")
    yield from against(pictures, {name: _samples(dataset, name) for name in there}, "dataset")


def against(pictures: Mapping[str, Image], frames: Mapping[str, Sequence[Image]], source: str) -> Iterator[Finding]:
    """Each live picture beside `frames` of every camera of the same rig, by its names. `source`: of what they are, and
    the last word of each check's name."""
    there = [name for name in frames if name in pictures and frames[name]]
    known = {name: [_small(frame) for frame in frames[name]] for name in there}
    alike = {
        (live, other): max(float(np.mean(_small(pictures[live]) * sample)) for sample in known[other])
        for live, other in itertools.product(there, there)
    }
    wrong = set()
    for one, two in itertools.combinations(there, 2):
        gain = alike[one, two] + alike[two, one] - alike[one, one] - alike[two, two]
        if gain > EXCHANGED:
            wrong |= {one, two}
            remedy = f"exchange their plugs, or `device`/`serial` of {one} and {two} in the rig file"
            value = f"looks like {two} of the {source}, and {two} like {one} (more alike by {gain:.2f})"
            yield fail(f"cameras.{one}.{source}", value, remedy)
    for name in there:
        if name in wrong:
            continue
        score = alike[name, name]
        if score >= ALIKE:
            yield ok(f"cameras.{name}.{source}", f"shows what it showed there (correlation {score:.2f})")
        else:
            remedy = "compare both pictures: has it been moved, turned or covered?"
            yield warn(f"cameras.{name}.{source}", f"shows something else than there (correlation {score:.2f})", remedy)


def _samples(dataset: Dataset, camera: str) -> list[Image]:
    """First frames of some episodes, where the arms are in the start pose as they are now, most likely."""
    chosen = np.unique(np.linspace(0, len(dataset.episodes) - 1, SAMPLES).astype(int))
    return [dataset.frame(camera, dataset.episodes[int(index)].from_index) for index in chosen]


def _small(picture: Image) -> NDArray[np.float32]:
    """(24, 32, 3), zero mean and unit deviation."""
    small = cv2.resize(picture, SMALL, interpolation=cv2.INTER_AREA).astype(np.float32)
    return (small - small.mean()) / (small.std() + 1e-6)  # type: ignore[no-any-return]
