"""A rig without arms for the benchmarks of recording: synthetic cameras, a control loop, and the real recorder."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml

from aloha_runtime import config, messages
from aloha_runtime.bus import RECORDER, Bus
from aloha_runtime.config import RigConfig
from aloha_runtime.data import recorded
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import RecorderState, Request
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import RunDirectory

CAMERAS = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
WORKER = "aloha_runtime.commands.bench_record_worker"
TIMEOUT_S = 30.0
Child = subprocess.Popen[str]


def rig_of(width: int, height: int) -> RigConfig:
    """The simulated rig with four cameras of this size at 50 fps."""
    plain = config.load("sim").model_dump(mode="json")
    camera = {"type": "sim", "width": width, "height": height, "fps": 50}
    return RigConfig.model_validate(plain | {"cameras": dict.fromkeys(CAMERAS, camera)})


def make_pictures(width: int, height: int) -> np.ndarray:
    """(cameras, height, 2 width, 3) uint8: smooth shapes with the noise of a sensor; twice as wide as a picture."""
    random = np.random.default_rng(0)
    wide = []
    for _ in CAMERAS:
        small = random.integers(0, 256, (max(1, height // 40), max(1, 2 * width // 40), 3), np.uint8)
        smooth = cv2.resize(small, (2 * width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        wide.append(np.clip(smooth + random.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8))
    return np.stack(wide)


@dataclass
class Scene:
    """The running rig: `control` is the loop that moves the arms; the recorder is started and killed at will."""

    dataset: Path
    control: Child
    bus: Bus
    _recorder: list[str]

    def __post_init__(self) -> None:
        self._state = self.bus.subscribe(messages.RECORDER)
        self._client = self.bus.client(RECORDER)

    def start(self, prepare: Callable[[], None] | None = None) -> Child:
        """A recorder, once it has said that it is there. `prepare` runs in it before anything else."""
        before = self._state.latest()
        child = subprocess.Popen(self._recorder, text=True, preexec_fn=prepare)  # noqa: PLW1509 (system calls only)

        def heard() -> bool:
            state = self._state.latest()
            return state is not None and (before is None or state.stamp_ns != before.stamp_ns)

        wait(heard, "the recorder's start")
        return child

    @property
    def state(self) -> RecorderState:
        found = self._state.latest()
        assert isinstance(found, RecorderState), "`start` has waited for it"
        return found

    def ask(self, verb: str) -> None:
        reply = self._client.request(Request(verb=verb, sender="operator"))
        if not reply.ok:
            raise AlohaError(reply.text)


@contextmanager
def scene(folder: Path, rig: RigConfig, pictures: Path) -> Iterator[Scene]:
    """Cameras and control loop in `folder`, with an empty dataset; whatever happens, none of them is left."""
    dataset = folder / "dataset"
    recorded.create(dataset, rig)
    with RunDirectory(folder / "run") as directory, Bus(directory.path, WallClock()) as bus:
        rig_file = directory.path / "rig.yaml"
        rig_file.write_text(yaml.safe_dump(rig.model_dump(mode="json")))
        asked = [str(rig_file), str(directory.path), str(pictures)]
        arguments = ["--rig", str(rig_file), "--run-dir", str(directory.path), "--dataset", str(dataset)]
        recorder = [sys.executable, "-m", "aloha_runtime.processes.recorder", "recorder", *arguments, "--task", "bench"]
        workers: Mapping[str, Child] = {}
        try:
            workers = {
                role: subprocess.Popen(
                    [sys.executable, "-m", WORKER, role, *asked],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for role in ("cameras", "control")
            }
            yield Scene(dataset, workers["control"], bus, recorder)
        finally:
            for child in workers.values():
                end(child)


def end(child: Child) -> None:
    """SIGTERM, and wait."""
    child.terminate()
    child.communicate()


def wait(until: Callable[[], bool], what: str) -> None:
    """AlohaError when it does not happen."""
    deadline = time.monotonic() + TIMEOUT_S
    while not until():
        if time.monotonic() > deadline:
            raise AlohaError(f"{what} did not happen within {TIMEOUT_S:.0f} s; see what the processes printed")
        time.sleep(0.002)
