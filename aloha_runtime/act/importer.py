"""Pickled files of others, opened without running anything: `torch.save` files and pickles of numpy arrays.

Only what `pickled.py`'s machine can build of the names below comes out: dicts, lists, tuples, numbers, strings, and
torch tensors or numpy arrays whose numbers lie in the file.

    torch.save, today       a zip file: data.pkl, and each storage's bytes uncompressed in data/KEY
    torch.save, before 1.6  pickles one after another, then each storage's bytes (torch's `_legacy_load`)
"""

import io
import math
import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from aloha_runtime.act.pickled import DAMAGED, MAX_BYTES, Names, Node, read, refuse
from aloha_runtime.act.pickled_numpy import NUMPY
from aloha_runtime.errors import CheckpointError

ZIP_HEAD = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

_DTYPES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool,
}  # fmt: skip


def read_torch_file(path: str | Path) -> Any:
    """What `torch.save` wrote, with tensors on the CPU. Raises CheckpointError naming the file and what is refused."""
    path = Path(path)
    with _open(path) as file:
        head = file.read(8)
        file.seek(0)
        if head[:4] == ZIP_HEAD:
            return _read_zip(path, file)
        if head[:1] == b"\x80":
            return _read_legacy(path, file)
    raise CheckpointError(
        f"{path} is not a file of torch.save (it begins with {head!r}); give the .ckpt, .pt or .pth file, or load "
        "safetensors through its policy directory"
    )


def read_pickle(path: str | Path) -> Any:
    """A pickle of containers and numpy arrays, such as ACT's dataset_stats.pkl, of any pickle protocol."""
    path = Path(path)
    with _open(path) as file:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES >> 20} MB, which no file of statistics is")
        if file.read(4) == ZIP_HEAD:
            raise CheckpointError(
                f"{path} is a zip file, as torch.save writes; give a pickle such as dataset_stats.pkl"
            )
        file.seek(0)
        value = read(file, path, NUMPY)
        if file.read(1):
            raise CheckpointError(f"{path} goes on after its pickle ends; it is not a file of statistics")
        return value


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}); give the path of the file") from error


class _StorageType(Node):
    """The type of a storage, as the file names it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage(Node):
    """The numbers (n,) that tensors are views of."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> Tensor:
    """A view of a storage; gradients and hooks, which come last, are left out."""
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"a tensor of size {size}, stride {stride}, offset {offset}")
    count, length = math.prod(size), storage.numbers.numel()
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > length or offset > length or (count and last >= length):
        raise ValueError(f"a tensor of size {size}, stride {stride}, offset {offset} in a storage of {length} numbers")
    return storage.numbers.as_strided(size, stride, offset)


def _parameter(data: Any, *_rest: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter that is no tensor")
    return data


_NAMES: Names = {
    **NUMPY,
    **{("torch", f"{kind}Storage"): _StorageType(dtype) for kind, dtype in _DTYPES.items()},
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


def _storage_id(identity: Any) -> tuple[torch.dtype, str, int]:
    """dtype, key and length of the storage that a persistent id names."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("a persistent id that names no storage")
    kind, key, length = identity[1], identity[2], identity[4]
    if not isinstance(kind, _StorageType) or not isinstance(key, str) or type(length) is not int or length < 0:
        raise ValueError(f"a storage {key!r} of unknown type or length")
    return kind.dtype, key, length


def _read_zip(path: Path, file: BinaryIO) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            root = _check_zip(path, archive)
            storages: dict[str, _Storage] = {}

            def storage(identity: Any) -> _Storage:
                dtype, key, length = _storage_id(identity)
                if key not in storages:
                    content = bytearray(archive.read(f"{root}data/{key}"))
                    storages[key] = _Storage(
                        torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
                    )
                if storages[key].numbers.dtype != dtype or storages[key].numbers.numel() != length:
                    raise ValueError(f"storage {key} is not of the length or type that the tensors say")
                return storages[key]

            return read(io.BytesIO(archive.read(f"{root}data.pkl")), path, _NAMES, storage)
    except (zipfile.BadZipFile, OSError, *DAMAGED) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy the file again") from error


def _check_zip(path: Path, archive: zipfile.ZipFile) -> str:
    """The folder of the archive (with its slash), once its entries are such as torch writes."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename:
            raise refuse(path, f"an entry outside the archive, {entry.filename!r}"[:200])
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise refuse(path, f"a compressed or encrypted entry, {entry.filename!r} (torch.save writes none)"[:200])
    if len(set(names)) < len(names) or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise refuse(path, "entries twice, or larger than the file itself")
    roots = [name.removesuffix("data.pkl") for name in names if PurePosixPath(name).name == "data.pkl"]
    if len(roots) != 1 or any(PurePosixPath(name).name == "constants.pkl" for name in names):
        raise CheckpointError(
            f"{path} is a zip file but not one of torch.save (TorchScript?); save the model's state dict instead"
        )
    if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
        raise CheckpointError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    return roots[0]


def _read_legacy(path: Path, file: BinaryIO) -> Any:
    """The numbers come after the pickle that refers to them, so storages are made empty and filled at the end."""
    size = path.stat().st_size
    if read(file, path, NUMPY) != LEGACY_MAGIC or read(file, path, {}) != LEGACY_PROTOCOL:
        raise CheckpointError(f"{path} is a plain pickle, not a file of torch.save; give the policy's .ckpt file")
    system = read(file, path, {})
    if not isinstance(system, dict) or not system.get("little_endian"):
        raise CheckpointError(f"{path} was written on a big-endian machine; save it again on a little-endian one")
    storages: dict[str, _Storage] = {}

    def storage(identity: Any) -> _Storage:
        dtype, key, length = _storage_id(identity)
        if identity[5:] not in ((), (None,)):
            raise ValueError("a view of a storage, as torch wrote before 0.4; save it again with a newer torch")
        if key not in storages:
            used = sum(known.numbers.nbytes for known in storages.values())
            if used + length * dtype.itemsize > size:
                raise ValueError(f"storage {key} is larger than the file")
            storages[key] = _Storage(torch.empty(length, dtype=dtype))
        return storages[key]

    value = read(file, path, _NAMES, storage)
    keys = read(file, path, {})
    try:
        for key in keys:
            numbers = storages[key].numbers
            (length,) = struct.unpack("<q", file.read(8))
            if length != numbers.numel():
                raise ValueError(f"storage {key} has {length} numbers, the tensors say {numbers.numel()}")
            content = bytearray(file.read(numbers.nbytes))
            if content:
                numbers.copy_(torch.frombuffer(content, dtype=numbers.dtype))
        if set(keys) != set(storages):
            raise ValueError("numbers of a storage are missing")
    except (OSError, *DAMAGED) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy the file again") from error
    return value
