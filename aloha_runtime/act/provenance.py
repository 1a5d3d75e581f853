"""provenance.json beside a checkpoint: which code, data, robot and settings it came from.

`{"code": {...}, "written": "2026-05-01T12:00:00+00:00", "dataset": {...}, "rig": {...}, "calibration": {...},
"training": {...}, "source": {...}, "frames": {...}}`; a part that is not known is left out. LeRobot ignores the file.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from aloha_runtime import __version__
from aloha_runtime.act.config import ACTION, STATE
from aloha_runtime.act.files import write_text
from aloha_runtime.act.json_file import read_json
from aloha_runtime.data import reports
from aloha_runtime.data.units import flat_names
from aloha_runtime.errors import CheckpointError

PROVENANCE = "provenance.json"
PARTS = ("dataset", "rig", "calibration", "training", "source", "frames")


def write(directory: Path, **parts: Mapping[str, Any] | None) -> None:
    """Write `directory/provenance.json`: code and time always, and of PARTS those that are given and not None."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"provenance has no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    content = {
        "code": {"aloha_runtime": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: dict(value) for name, value in parts.items() if value is not None},
    }
    write_text(directory / PROVENANCE, json.dumps(content, indent=4, default=str))


def read(directory: Path) -> dict[str, Any]:
    """What is known of the policy in `directory`; empty for a directory that others wrote."""
    path = directory / PROVENANCE
    return read_json(path) if path.exists() else {}


def dataset(path: Path) -> dict[str, Any]:
    """The part `dataset`: where it lies, its rate (Hz), names and number of frames, and a fingerprint of its metadata.

    The fingerprint covers info, statistics, tasks and episode rows. Statistics depend on every number of the dataset,
    so that another recording has another fingerprint, and hashing them takes milliseconds.
    """
    info = path / "meta" / "info.json"
    if not info.exists():
        raise CheckpointError(f"{path} is not a LeRobot dataset ({info} is missing); give the dataset's folder")
    digest = hashlib.sha256()
    reports_of_ours = path / reports.DIRECTORY
    for file in sorted((path / "meta").rglob("*")):
        if file.is_file() and not file.name.startswith(".") and file.parent != reports_of_ours:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0" + file.read_bytes())
    content = read_json(info)
    totals = {key: value for key, value in content.items() if key.startswith("total_")}
    names = {name: flat_names(content.get("features", {}).get(name, {}).get("names")) for name in (STATE, ACTION)}
    fingerprint = f"sha256:{digest.hexdigest()}"
    return {"path": str(path), "fingerprint": fingerprint, "fps": content.get("fps"), "names": names, **totals}


def recorded_on(path: Path) -> dict[str, dict[str, Any]]:
    """The parts `rig` and `calibration`, of a dataset that says which rig recorded it (`data/recorded.py`)."""
    file = path / reports.RIG_PATH
    if not file.exists():
        return {}
    found = read_json(file)
    calibration: dict[str, Any] = {
        key: found.pop(key) for key in ("grippers", "gripper_current_ma", "start_pose") if key in found
    }
    return {"rig": found, "calibration": calibration}


def file(path: Path) -> dict[str, Any]:
    """A file that something was made of, for the part `source`."""
    with path.open("rb") as opened:
        return {"path": str(path), "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
