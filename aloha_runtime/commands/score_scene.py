"""The start of each scene as a picture, so that every policy meets the same: what the cameras see now, beside and over
what they saw when the scene was first set up. A page that opens from disk shows it live."""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from aloha_runtime import messages
from aloha_runtime.bus import Bus, Closeable
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError
from aloha_runtime.ring_memory import Image
from aloha_runtime.rings import FrameSubscriber

PICTURE, PAGE = "scene.jpg", "scene.html"
TILE = (480, 360)
"""Width and height of one picture on the sheet."""
_PAGE = """<!doctype html><meta charset="utf-8"><title>the scene</title>
<style>body {{ margin: 0; background: #111; color: #eee; font: 16px system-ui }} p {{ margin: 12px }}</style>
<p>Left: now. Middle: how this scene began for the first policy. Right: both, one over the other. Move the objects until
nothing is doubled on the right.</p><img id="scene" src="{picture}" style="max-width: 100%">
<script>setInterval(() => {{ document.getElementById("scene").src = "{picture}?" + Date.now() }}, 250)</script>
"""


class Scenes(Closeable):
    """Pictures of the rig's cameras, (height, width, 3) uint8 RGB, in a folder."""

    def __init__(self, bus: Bus, rig: RigConfig, folder: Path) -> None:
        self._cameras = {
            name: FrameSubscriber(bus, messages.camera_topic(name, camera.fps)) for name, camera in rig.cameras.items()
        }
        self._folder = folder
        self.newest: dict[str, Image] = {}
        """What each camera showed last."""
        (folder / "scenes").mkdir(exist_ok=True)
        (folder / PAGE).write_text(_PAGE.format(picture=PICTURE), encoding="utf-8")

    @property
    def complete(self) -> bool:
        """Every camera has shown a picture."""
        return self.newest.keys() == self._cameras.keys()

    def look(self) -> None:
        """Take the cameras' newest pictures."""
        for name, camera in self._cameras.items():
            info = camera.latest()
            pixels = None if info is None else camera.pixels(info)
            if pixels is not None:
                self.newest[name] = pixels

    def show(self, scene: int) -> None:
        """Write the sheet that the page shows: a row for each camera."""
        rows = [_row(picture, self._start(scene, name)) for name, picture in sorted(self.newest.items())]
        if rows:
            _write(self._folder / PICTURE, np.vstack(rows))

    def keep(self, scene: int) -> None:
        """The scene begins: what the cameras see now is how it is to look for every further policy."""
        for name, picture in self.newest.items():
            path = self._path(scene, name)
            if not path.exists():
                _write(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def is_known(self, scene: int) -> bool:
        """Whether a policy has met the scene before."""
        return any(self._path(scene, name).exists() for name in self._cameras)

    def close(self) -> None:
        """Look no more."""
        for camera in self._cameras.values():
            camera.close()

    def _path(self, scene: int, camera: str) -> Path:
        return self._folder / "scenes" / f"{scene:03d}_{camera}.jpg"

    def _start(self, scene: int, camera: str) -> Image | None:
        path = self._path(scene, camera)
        found = cv2.imread(str(path)) if path.exists() else None
        return None if found is None else np.asarray(found, np.uint8)


def _row(live: Image, start: Image | None) -> Image:
    """Now, at the start, and both: one row, BGR."""
    now = cv2.resize(cv2.cvtColor(live, cv2.COLOR_RGB2BGR), TILE, interpolation=cv2.INTER_AREA)
    if start is None:
        return np.hstack([now, np.zeros_like(now), np.zeros_like(now)])
    before = cv2.resize(start, TILE, interpolation=cv2.INTER_AREA)
    return np.hstack([now, before, cv2.addWeighted(now, 0.5, before, 0.5, 0)])


def _write(path: Path, picture: Image) -> None:
    """In one step: the page must not see half a picture."""
    aside = path.with_name(f".{path.name}")
    try:
        aside.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise AlohaError(f"{path} cannot be written ({error.strerror}); make room, then --resume") from None


def starts(folder: Path, scene: int, cameras: Mapping[str, object]) -> list[str]:
    """Paths, relative to the folder, of the pictures of how a scene began."""
    names = [f"scenes/{scene:03d}_{name}.jpg" for name in cameras]
    return [name for name in names if (folder / name).exists()]
