"""HDF5 files that lead to other files are refused by name before anything of them is read."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from aloha_runtime.data.hdf5 import Hdf5Episode
from aloha_runtime.errors import DatasetError

T = 4
ZEROS = np.zeros((T, 14), np.float32)


def episode(path: Path, change: Callable[[h5py.File, Path], None] = lambda file, secret: None) -> Path:
    """A small episode, whose `observations/effort` is missing until `change` adds it."""
    secret = path.with_name("secret.bin")
    secret.write_bytes(np.arange(T * 14, dtype=np.float32).tobytes())
    with h5py.File(path.with_name("other.hdf5"), "w") as other:
        other["effort"] = ZEROS
    with h5py.File(path, "w") as file:
        file["observations/qpos"] = ZEROS
        file["action"] = ZEROS
        file.create_dataset("observations/images/cam", data=np.zeros((T, 4, 4, 3), np.uint8))
        change(file, secret)
    return path


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("observations/effort", (T, 14), np.float32, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def external_link(file: h5py.File, secret: Path) -> None:
    file["observations/effort"] = h5py.ExternalLink("other.hdf5", "/effort")


def external_group(file: h5py.File, secret: Path) -> None:
    file["more"] = h5py.ExternalLink("other.hdf5", "/")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["observations/effort"] = h5py.SoftLink("/action")


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((T, 14), np.float32)
    layout[:] = h5py.VirtualSource("other.hdf5", "effort", (T, 14))
    file.create_virtual_dataset("observations/effort", layout)


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (external_storage, "observations/effort", "stored externally"),
        (external_link, "observations/effort", "an external link"),
        (external_group, "more", "an external link"),
        (soft_link, "observations/effort", "a soft link"),
        (virtual, "observations/effort", "a virtual dataset"),
    ],
)
def test_what_leads_to_another_file_is_refused_by_name(
    tmp_path: Path, change: Callable[[h5py.File, Path], None], where: str, what: str
) -> None:
    path = episode(tmp_path / "episode_0.hdf5", change)
    with pytest.raises(DatasetError) as caught:
        Hdf5Episode(path)
    assert str(caught.value).startswith(f"{path}: {where} is {what}")


def test_a_group_inside_itself_comes_to_an_end(tmp_path: Path) -> None:
    def loop(file: h5py.File, secret: Path) -> None:
        file["observations/again"] = file["observations"]

    with Hdf5Episode(episode(tmp_path / "episode_0.hdf5", loop)) as opened:
        assert opened.length == T
        assert list(opened.vectors) == ["observation.state", "action"]
