"""What a dataset holds, in figures."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from aloha_runtime.data import reports
from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.layout import COUNTERS
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.staging import ASIDE


@reads_files
def summarise(path: Path) -> dict[str, Any]:
    """Plain values, ready for JSON. Raises DatasetError when `path` is no dataset, or its tables are damaged."""
    dataset = Dataset(path)
    said = [reports.read(path, episode.index) for episode in dataset.episodes]
    lengths = [episode.length / dataset.fps for episode in dataset.episodes]
    videos = {span.path for episode in dataset.episodes for span in episode.videos.values()}
    return {
        "path": str(path),
        "episodes": len(dataset.episodes),
        "frames": len(dataset),
        "fps": dataset.fps,
        "seconds": len(dataset) / dataset.fps,
        "shortest_s": min(lengths, default=0.0),
        "longest_s": max(lengths, default=0.0),
        "tasks": dict(Counter(task for episode in dataset.episodes for task in episode.tasks)),
        "cameras": {name: f"{width}x{height}" for name, (height, width) in dataset.cameras.items()},
        "codecs": sorted({_codec(feature.info) for feature in dataset.features.values() if feature.dtype == "video"}),
        "features": {
            key: {"dtype": feature.dtype, "shape": feature.shape}
            for key, feature in dataset.features.items()
            if key not in COUNTERS and feature.dtype not in ("video", "image")
        },
        "robot_type": dataset.info.robot_type,
        "rig": rig_name(path),
        "outcomes": dict(Counter(each.get("outcome") or "not said" for each in said)),
        "flagged": {index: each["flags"] for index, each in enumerate(said) if each.get("flags")},
        "open_episode": (path / ASIDE / "open.json").exists(),
        "video_files": len(videos),
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "video_bytes": sum(file.stat().st_size for file in videos if file.exists()),
    }


def rig_name(path: Path) -> str:
    """The rig that recorded the dataset; empty when it does not say so."""
    try:
        found = msgspec.json.decode((path / reports.RIG_PATH).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return ""
    return str(found.get("name", "")) if isinstance(found, dict) else ""


def _codec(info: dict[str, Any] | None) -> str:
    return str((info or {}).get("video.codec", "unknown"))
