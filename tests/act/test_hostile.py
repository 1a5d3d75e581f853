"""Nothing in a file of others runs: hostile pickles, and safetensors and JSON that lie about themselves."""

import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
from typer.testing import CliRunner

from aloha_runtime.act import ACTPolicy
from aloha_runtime.act.header import WEIGHTS
from aloha_runtime.act.importer import read_pickle, read_torch_file
from aloha_runtime.cli import app
from aloha_runtime.errors import CheckpointError


def file_name(name: str) -> str:
    return re.sub(r"\W+", "_", name) + ".pt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in hostile.FILES.items():
        (folder / file_name(name)).write_bytes(make(folder / f"{file_name(name)}.fired"))
    return folder


@pytest.fixture(scope="module")
def fired(folder: Path) -> set[str]:
    """The files that fire under plain unpickling; their markers are removed again."""
    names = [file_name(name) for name in hostile.FILES]
    command = [sys.executable, hostile.__file__, *(folder / name for name in names)]
    finished = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    print(finished.stderr)
    seen = {name for name in names if (folder / f"{name}.fired").exists()}
    for marker in folder.glob("*.fired"):
        marker.unlink()
    return seen


def opened_in_every_way(path: Path, scratch: Path) -> list[Callable[[], Any]]:
    policy = scratch / "policy"
    policy.mkdir()
    (policy / "config.json").write_text('{"type": "act", "input_features": {}, "output_features": {}}')
    (policy / WEIGHTS).write_bytes(path.read_bytes())
    stats = scratch / "stats.pkl"
    stats.write_bytes(b"\x80\x02}.")
    as_json = scratch / "json"
    as_json.mkdir()
    (as_json / "config.json").write_bytes(path.read_bytes())
    convert = ["convert", "checkpoint", "--cameras", "cam_high", str(path), str(scratch / "out")]

    def command(words: list[str]) -> Callable[[], Any]:
        return lambda: CliRunner().invoke(app, words, catch_exceptions=False)

    return [
        lambda: read_pickle(path),
        lambda: read_torch_file(path),
        lambda: ACTPolicy.from_pretrained(policy),
        lambda: ACTPolicy.from_pretrained(as_json),
        lambda: ACTPolicy.from_pretrained(path),
        command([*convert, "--stats", str(stats)]),
        command([*convert, "--stats", str(path)]),
    ]


@pytest.mark.parametrize("name", hostile.FILES)
def test_hostile_file_fires_elsewhere_and_not_here(name: str, folder: Path, fired: set[str], tmp_path: Path) -> None:
    assert file_name(name) in fired, "the file is not hostile: the test would show nothing"
    for attempt in opened_in_every_way(folder / file_name(name), tmp_path):
        with pytest.raises(CheckpointError):
            attempt()
    assert not list(folder.glob("*.fired"))


def test_refusal_names_file_and_what_it_asked_for(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"os_system.pt is refused: it asks for os.system, .* could run code"):
        read_pickle(folder / file_name("os.system"))
    with pytest.raises(CheckpointError, match=r"torch_two_data_pkl.pt is refused: it asks for entries twice"):
        read_torch_file(folder / file_name("torch: two data.pkl"))


def _safetensors(header: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "header longer than the file": _safetensors({}, length=1 << 40),
    "negative length": _safetensors({}, length=(1 << 64) - 8),
    "overlapping tensors": _safetensors({"a": _tensor(0, 8, [2]), "b": _tensor(4, 8, [1])}),
    "tensor beyond the end": _safetensors({"a": _tensor(0, 1 << 40, [1 << 38])}),
    "shape larger than its bytes": _safetensors({"a": _tensor(0, 8, [1 << 40])}),
    "hole between tensors": _safetensors({"a": _tensor(4, 8, [1])}),
    "unknown type": _safetensors({"a": _tensor(0, 8, [2], "OBJ")}),
    "header is a list": _safetensors([1, 2]),
    "header is nested": struct.pack("<Q", 1 << 17) + b"[" * (1 << 17),
}


@pytest.mark.parametrize("name", LIES)
def test_safetensors_that_lie_are_refused(name: str, saved: Path) -> None:
    (saved / WEIGHTS).write_bytes(LIES[name])
    with pytest.raises(CheckpointError, match=r"truncated or not a safetensors file"):
        ACTPolicy.from_pretrained(saved)


@pytest.mark.parametrize("state", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors", "..", 7, None])
def test_state_file_stays_inside_the_directory(state: object, saved: Path) -> None:
    pipeline = saved / "policy_preprocessor.json"
    content = json.loads(pipeline.read_text())
    content["steps"][3]["state_file"] = state
    pipeline.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"policy_preprocessor|state file"):
        ACTPolicy.from_pretrained(saved)


@pytest.mark.parametrize("file", ["config.json", "aloha.json", "policy_preprocessor.json"])
def test_json_nested_without_end_is_refused(file: str, saved: Path) -> None:
    (saved / file).write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError, match=rf"{file} cannot be read as JSON"):
        ACTPolicy.from_pretrained(saved)
