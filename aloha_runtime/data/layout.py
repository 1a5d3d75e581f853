"""Where things are in a LeRobotDataset v3.0 directory, and what its `meta/info.json` says.

The layout as LeRobot 0.6.1 writes it: one row per frame in `data/`, one row per episode in `meta/episodes/`, videos
under `videos/{key}/`, each numbered by chunk and file. What `meta/info.json` does not count
does not exist.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec

from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.paths import filled, refuse_keys_outside, refuse_links, refuse_path_outside
from aloha_runtime.data.units import flat_names
from aloha_runtime.errors import DatasetError

VERSION = "v3.0"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
IMAGE_PREFIX = "observation.images."
BOOL = "bool"
"""Dtype of a feature that is true or false: 1 and 0 in memory, among the vectors; stored as LeRobot stores it."""

COUNTERS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns that every dataset has beside its own features: timestamp in seconds within the episode, the rest counts."""


PICTURES = ("video", "image")
"""dtypes of pictures: in a video file, or each as the bytes of a picture file in its row."""


class Feature(msgspec.Struct, omit_defaults=True):
    """One entry of `features`: dtype "float32", "int64", "video", ...; shape without the time axis."""

    dtype: str
    shape: list[int]
    names: Any
    info: dict[str, Any] | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """(height, width, channels) of a picture, by the names of its axes, whichever comes first; zeros for another
        feature. Without names the axis of 1 or 3 is the channels, the last one first."""
        if self.dtype not in PICTURES or len(self.shape) != 3:
            return 0, 0, 0
        axes = dict(zip(flat_names(self.names), self.shape, strict=False))
        axes["channels"] = axes.get("channels", axes.get("channel", 0))
        if all(axes.get(axis) for axis in AXES):
            height, width, channels = (axes[axis] for axis in AXES)
            return height, width, channels
        first, *_, last = self.shape
        height, width, channels = self.shape if last in (1, 3) or first not in (1, 3) else (*self.shape[1:], first)
        return height, width, channels

    @property
    def is_camera(self) -> bool:
        """Whether it holds colour pictures; depth and other maps are carried along, never read."""
        said = self.info or {}
        return self.size[2] == 3 and not (said.get("is_depth_map") or said.get("video.is_depth_map"))


AXES = ("height", "width", "channels")


class Info(msgspec.Struct, kw_only=True):
    """`meta/info.json`. Keys that a newer LeRobot adds are ignored on reading."""

    codebase_version: str = VERSION
    fps: int | float
    features: dict[str, Feature]
    total_episodes: int = 0
    total_frames: int = 0
    total_tasks: int = 0
    chunks_size: int = 1000
    data_files_size_in_mb: float = 100
    video_files_size_in_mb: float = 200
    data_path: str = DATA_PATH
    video_path: str | None = VIDEO_PATH
    robot_type: str | None = None
    splits: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def cameras(self) -> dict[str, tuple[int, int]]:
        """Camera name to (height, width), in the order of the features."""
        return {camera_name(key): feature.size[:2] for key, feature in self.features.items() if feature.is_camera}

    @property
    def rate(self) -> Fraction:
        """Frames a second, exactly: 29.97 is 2997/100, 29.97003 NTSC's 30000/1001."""
        return Fraction(self.fps).limit_denominator(1001)

    @property
    def video_keys(self) -> list[str]:
        """Features that have video files, depth maps among them."""
        return [key for key, feature in self.features.items() if feature.dtype == "video"]

    @property
    def columns(self) -> list[str]:
        """Features that have a column in the rows: all but videos."""
        return [key for key, feature in self.features.items() if feature.dtype != "video"]

    @property
    def vectors(self) -> dict[str, int]:
        """Vector feature to its dimension: every one-dimensional float or bool feature that is not a counter."""
        return {
            key: feature.shape[0]
            for key, feature in self.features.items()
            if (feature.dtype.startswith("float") or feature.dtype == BOOL)
            and len(feature.shape) == 1
            and key not in COUNTERS
        }


def camera_name(key: str) -> str:
    """`observation.images.cam_high` to `cam_high`; a key without that prefix is its own name."""
    return key.removeprefix(IMAGE_PREFIX)


def data_file(root: Path, info: Info, chunk: int, file: int) -> Path:
    return filled(root, info.data_path, chunk_index=chunk, file_index=file)


def episodes_file(root: Path, chunk: int, file: int) -> Path:
    return filled(root, EPISODES_PATH, chunk_index=chunk, file_index=file)


def video_file(root: Path, info: Info, key: str, chunk: int, file: int) -> Path:
    return filled(root, info.video_path or VIDEO_PATH, video_key=key, chunk_index=chunk, file_index=file)


@reads_files
def read_info(root: Path) -> Info:
    """Read and judge `meta/info.json`; raises DatasetError naming the file, the value and what to do."""
    path = root / INFO_PATH
    if not root.exists() and root.with_name(f".{root.name}.old").is_dir():
        raise DatasetError(f"An edit of {root} was interrupted while it took its place: `aloha dataset repair {root}`")
    if not root.is_dir():
        raise DatasetError(f"There is no dataset at {root}: no such directory. Check the path, or record one there.")
    try:
        raw = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise DatasetError(
            f"{root} is not a LeRobot dataset: {INFO_PATH} is missing (found: {_listing(root)}). Name the"
            f" directory that holds meta/, or record again if its writer was killed before the first episode."
        ) from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path} is damaged ({error}). Restore it from a copy of the dataset.") from None
    _check_version(path, raw)
    _canonical(raw)
    try:
        info = msgspec.convert(raw, Info)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path} is not the description of a {VERSION} dataset: {error}. Correct it.") from None
    _check_features(path, info)
    _check_paths(path, info)
    return info


def _canonical(raw: dict[str, Any]) -> None:
    """Two things that older releases said in another way, or not at all."""
    features = raw.get("features")
    for feature in features.values() if isinstance(features, dict) else ():
        if isinstance(feature, dict):
            feature.setdefault("names", None)
            older, said = feature.get("video_info"), feature.get("info")
            if isinstance(older, dict) and isinstance(said, dict | None):
                feature["info"] = older | (said or {})


def _listing(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _check_version(path: Path, raw: Any) -> None:
    version = raw.get("codebase_version") if isinstance(raw, dict) else None
    if version == VERSION:
        return
    advice = f"This runtime reads {VERSION}."
    if isinstance(version, str) and version.startswith("v2"):
        advice += " Import it: `aloha dataset import`."
    raise DatasetError(f"{path}: codebase_version is {version!r}. {advice}")


def _check_paths(path: Path, info: Info) -> None:
    refuse_path_outside(path, "data_path", info.data_path, ("chunk_index", "file_index"))
    refuse_path_outside(path, "video_path", info.video_path or VIDEO_PATH, ("video_key", "chunk_index", "file_index"))
    refuse_keys_outside(path, info.features)
    refuse_links(path.parents[1], info.data_path, info.video_path or VIDEO_PATH)


def _check_features(path: Path, info: Info) -> None:
    if not info.features:
        raise DatasetError(f"{path}: features is empty. Restore the file from a copy.")
    for key, dtype in COUNTERS.items():
        found = info.features.get(key)
        if found is None or found.dtype != dtype or found.shape != [1]:
            said = "missing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise DatasetError(f"{path}: feature {key!r} is {said}; it must be {dtype} of shape [1]. Correct it.")
    for key, feature in info.features.items():
        if any(size < 1 for size in feature.shape):
            raise DatasetError(f"{path}: feature {key!r} has shape {feature.shape}; sizes start at 1. Correct it.")
    if info.fps <= 0:
        raise DatasetError(f"{path}: fps is {info.fps}; it must be positive. Correct that entry.")
