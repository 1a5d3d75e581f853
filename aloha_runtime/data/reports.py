"""What this runtime knows of an episode beyond LeRobot's format: one JSON file each under `meta/aloha/`.

LeRobot ignores them. `rig.json` beside them says what rig recorded the dataset.
"""

from pathlib import Path
from typing import Any

import msgspec

DIRECTORY = "meta/aloha"
RIG_PATH = f"{DIRECTORY}/rig.json"


def path(root: Path, episode: int) -> Path:
    """Where the report of an episode is, or would be."""
    return root / DIRECTORY / f"episode_{episode:06d}.json"


def read(root: Path, episode: int) -> dict[str, Any]:
    """The report of an episode; empty when there is none, or none that can be read."""
    try:
        found = msgspec.json.decode(path(root, episode).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def listed(root: Path) -> list[tuple[int, Path]]:
    """Every report that is there, with the index of its episode."""
    found = sorted((root / DIRECTORY).glob("episode_*.json"))
    return [(int(file.stem.removeprefix("episode_")), file) for file in found if file.stem[8:].isdigit()]
