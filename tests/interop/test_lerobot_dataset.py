"""LeRobot 0.6.1 opens what we write. It runs in an environment of its own, because it needs Python 3.12."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aloha_runtime import robot
from aloha_runtime.act import LeRobotDataset
from aloha_runtime.data import Dataset, DatasetWriter

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-interop/bin/python"


@pytest.fixture(scope="module")
def lerobot_python():
    """The interpreter of the LeRobot environment, or skip."""
    if not PYTHON.exists():
        pytest.skip(f"no LeRobot environment: {PYTHON.relative_to(ROOT)} is missing")
    probe = subprocess.run([PYTHON, "-c", "import lerobot.datasets"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"LeRobot cannot be imported there: {probe.stderr.strip().splitlines()[-1]}")
    return PYTHON


def read_with_lerobot(python, path, scratch):
    """What `lerobot_read.py` saw in the dataset at `path`."""
    script = Path(__file__).with_name("lerobot_read.py")
    environment = {"HF_HOME": str(scratch / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    command = [python, script, path, scratch / "seen.npz"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr
    return np.load(scratch / "seen.npz")


def image(index):
    """A picture with two smooth ramps that moves with `index`."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([2 * rows + index, 3 * columns, np.full_like(rows, 90)], axis=-1).astype(np.uint8)


def psnr(shown, expected) -> float:
    """Peak signal to noise ratio of pictures in 0..255, in dB."""
    error = ((shown.astype(float) - expected.astype(float)) ** 2).mean()
    return 10 * np.log10(255**2 / max(error, 1e-9))


DELTAS = [
    {},
    {"observation.state": [0], "observation.images.cam_high": [0], "action": [i / 50 for i in range(20)]},
    {"observation.images.cam_left_wrist": [-0.04, 0.0, 0.02], "action": [-0.02, 0.0], "observation.effort": [3.0]},
]


def test_samples_are_lerobots(lerobot_python, tmp_path):
    """The same entries with the same types, shapes and values, at the ends of episodes as well as inside them."""
    path = Path(__file__).parents[1] / "data/lerobot_dataset_v3/dataset"
    ends = [episode.to_index for episode in Dataset(path).episodes]
    samples = sorted({0, 1, 17, 50, *(end - 1 for end in ends), *ends[:-1]})
    script, output = Path(__file__).with_name("lerobot_samples.py"), tmp_path / "samples.npz"
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    command = [lerobot_python, script, path, json.dumps(DELTAS), json.dumps(samples), output]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert finished.returncode == 0, finished.stderr
    theirs = np.load(output)

    for case, deltas in enumerate(DELTAS):
        ours = LeRobotDataset(path, deltas)
        for sample in samples:
            item, head = ours[sample], f"{case}/{sample}/"
            assert {head + key for key in item} == {key for key in theirs.files if key.startswith(head)}
            for key, value in item.items():
                found, expected = np.asarray(value), theirs[head + key]
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape), key
                if key.startswith("observation.images.") and not key.endswith("_is_pad"):
                    assert np.abs(found - expected).max() <= 2 / 255, key  # another FFmpeg may round otherwise
                else:
                    assert np.array_equal(found, expected), key


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_lerobot_reads_ours(lerobot_python, tmp_path, codec):
    """Every frame through LeRobot's own `__getitem__` equals what went in."""
    rng = np.random.default_rng(1)
    vectors = {"observation.state": robot.NAMES, "action": robot.NAMES, "observation.environment_state": ["height"]}
    written = {key: [] for key in vectors}
    path, lengths, tasks = tmp_path / "dataset", (7, 4), ("lift", "insert")
    with DatasetWriter.create(path, vectors=vectors, cameras={"cam_high": (48, 64)}, codec=codec) as writer:
        for length, task in zip(lengths, tasks, strict=True):
            for index in range(length):
                frame = {key: rng.normal(size=len(names)).astype(np.float32) for key, names in vectors.items()}
                writer.add_frame(frame | {"observation.images.cam_high": image(index)})
                for key, value in frame.items():
                    written[key].append(value)
            writer.save_episode(task)

    seen = read_with_lerobot(lerobot_python, path, tmp_path)

    assert json.loads(str(seen["meta"])) == {"fps": 50, "episodes": 2, "frames": 11}
    assert np.array_equal(seen["observation.state"], np.stack(written["observation.state"]))
    assert np.array_equal(
        seen["observation.environment_state"].ravel(), np.ravel(written["observation.environment_state"])
    )
    assert list(seen["task"]) == ["lift"] * 7 + ["insert"] * 4
    ends = np.repeat(np.cumsum(lengths), lengths)
    future = np.arange(11)[:, None] + np.arange(3)
    assert np.array_equal(seen["action_is_pad"], future >= ends[:, None])
    assert np.array_equal(seen["action"], np.stack(written["action"])[np.minimum(future, ends[:, None] - 1)])
    images = 255 * seen["observation.images.cam_high"].transpose(0, 2, 3, 1)
    expected = np.stack([image(index) for length in lengths for index in range(length)])
    assert psnr(images, expected) > 35
    ours = Dataset(path)
    assert np.abs(images - np.concatenate([ours.images("cam_high", episode) for episode in range(2)])).max() <= 2
    for key, feature in ours.stats.items():
        for name, value in feature.items():
            assert np.allclose(seen[f"stats/{key}/{name}"], value), (key, name)


def test_lerobot_reads_what_a_killed_writer_left(lerobot_python, tmp_path):
    """Files that no `info.json` counts yet do not keep LeRobot from opening the finished episodes."""
    path = tmp_path / "dataset"
    with DatasetWriter.create(path, vectors={"action": ["a"]}, cameras={"cam_high": (48, 64)}) as writer:
        for episode in range(2):
            for index in range(3):
                writer.add_frame(
                    {"action": np.array([10.0 * episode + index]), "observation.images.cam_high": image(0)}
                )
            if episode == 1:
                counted = (path / "meta/info.json").read_bytes()
            writer.save_episode("lift")
    (path / "meta/info.json").write_bytes(counted)

    seen = read_with_lerobot(lerobot_python, path, tmp_path)
    assert json.loads(str(seen["meta"])) == {"fps": 50, "episodes": 1, "frames": 3}
    assert np.array_equal(seen["action"][:, 0].ravel(), [0, 1, 2])
    assert np.array_equal(Dataset(path).vectors("action").ravel(), [0, 1, 2])
