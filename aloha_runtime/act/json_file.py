"""JSON objects of a policy directory, with one clear message for a damaged file."""

import json
from pathlib import Path
from typing import Any

from aloha_runtime.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises `CheckpointError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); copy the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object; it is not part of a LeRobot policy")
    return content
