"""The ring's copy on the disk, for the day on which the recorder itself is killed or the power goes.

Two files take turns, each as long as the ring; chunks are appended as they are finished. What a dead recorder left is
found by the next recorder of this folder: the kernel frees the lock of the dead. The lock file lists the two
by device and inode, as the recorder made them: no other file of such a name is read, replaced or deleted.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec
import zstandard
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, Schema
from mcap.stream_reader import StreamReader, get_chunk_data_stream

from aloha_runtime import durable
from aloha_runtime.flight_log.channels import Channels
from aloha_runtime.flight_log.mcap_file import head
from aloha_runtime.flight_log.ring import MESSAGE, OPCODE_AND_LENGTH, Sealed, around

PREFIX = ".ring-"
OURS = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{12}}\.lock")
"""The names that `Spool` gives; nothing else in the folder is opened or deleted."""
SYNC_EVERY = 10
"""Chunks (seconds) between two syncs: what a power cut costs at most, and one small write in ten seconds."""
LONGEST_RECORD = 64 << 20
"""Bytes; a second of messages has a hundredth of it."""
_DAMAGED = (McapError, zstandard.ZstdError, struct.error, ValueError)


class Spool:
    """Appends chunks; `close` takes the files away, since a recorder that ended well has written its logs."""

    def __init__(self, folder: Path, run_dir: Path, channels: Channels, longest_ns: int) -> None:
        """Raises OSError when the folder cannot be written."""
        self._head, self._longest_ns = head(channels), longest_ns
        name = hashlib.sha256(os.fsencode(run_dir.absolute())).hexdigest()[:12]
        self._lock_path = folder / f"{PREFIX}{name}.lock"
        self._lock = os.fdopen(os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._paths = _files(self._lock_path)
        self._ours = _listed(self._lock_path)
        self._began_ns: int | None = None
        self._appended = 0
        self._file = self._begin(0)

    def _begin(self, number: int) -> IO[bytes]:
        self._number, self._began_ns = number, None
        path = self._paths[number]
        self._remove(path)
        file = path.open("xb")  # another file of that name stays: FileExistsError, and the ring is in memory only
        status = os.fstat(file.fileno())
        self._ours = {**self._ours, path.name: (status.st_dev, status.st_ino)}
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(msgspec.json.encode(self._ours).decode())
        self._lock.flush()
        os.fsync(self._lock.fileno())
        file.write(self._head)
        durable.sync(path.parent)
        return file

    def _remove(self, path: Path) -> None:
        if _is_listed(path, self._ours):
            path.unlink(missing_ok=True)

    def append(self, chunk: Sealed) -> None:
        """Raises OSError when the disk is full."""
        if self._began_ns is not None and chunk.end_ns - self._began_ns > self._longest_ns:
            os.fdatasync(self._file.fileno())
            self._file.close()
            self._file = self._begin(1 - self._number)
        self._began_ns = chunk.start_ns if self._began_ns is None else self._began_ns
        self._file.write(chunk.record + chunk.indexes)
        self._file.flush()
        self._appended += 1
        if self._appended % SYNC_EVERY == 0:
            os.fdatasync(self._file.fileno())

    def restart(self) -> None:
        """Everything appended so far is in a log: forget it."""
        self._file.close()
        self._remove(self._paths[1 - self._number])
        self._file = self._begin(self._number)

    def close(self) -> None:
        """Forget everything; twice is harmless."""
        with contextlib.suppress(OSError):  # of a full disk
            self._file.close()
        for path in self._paths:
            self._remove(path)
        if os.fstat(self._lock.fileno()).st_ino == _inode(self._lock_path):
            self._lock_path.unlink(missing_ok=True)
        self._lock.close()


def left_behind(folder: Path) -> Iterator[tuple[Channels, list[Sealed]]]:
    """What dead recorders left in this folder: channels and chunks of each. Its files go when the next one is asked
    for, so that what could not be rewritten stays."""
    for lock_path in sorted(folder.glob(f"{PREFIX}*.lock")):
        if not OURS.fullmatch(lock_path.name) or lock_path.is_symlink() or not lock_path.is_file():
            continue  # somebody else's
        with contextlib.suppress(FileNotFoundError), lock_path.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its recorder is alive
            ours = _listed(lock_path)
            if not ours:
                continue  # nothing says that a recorder wrote it
            paths = [path for path in _files(lock_path) if _is_listed(path, ours)]
            found = [read(path) for path in paths]
            chunks = sorted((chunk for _, some in found for chunk in some), key=lambda chunk: chunk.start_ns)
            if chunks:
                yield next(channels for channels, some in found if some), chunks
            for path in (*paths, lock_path):
                path.unlink(missing_ok=True)


def _listed(lock_path: Path) -> dict[str, tuple[int, int]]:
    """Name -> device and inode of the files that the recorder of this lock made."""
    try:
        return msgspec.json.decode(lock_path.read_bytes(), type=dict[str, tuple[int, int]])
    except (OSError, msgspec.DecodeError):
        return {}


def _is_listed(path: Path, ours: dict[str, tuple[int, int]]) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and ours.get(path.name) == (status.st_dev, status.st_ino)


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except OSError:
        return 0


def _files(lock_path: Path) -> list[Path]:
    """The two files that a lock is for."""
    return [lock_path.with_name(f"{lock_path.stem}.{number}.mcap") for number in range(2)]


def read(path: Path) -> tuple[Channels, list[Sealed]]:
    """Channels and whole chunks of a file that may end anywhere."""
    channels = Channels([], [])
    channels.schemas.clear()
    channels.channels.clear()
    chunks: list[Sealed] = []
    with path.open("rb") as file, contextlib.suppress(*_DAMAGED):
        for record in StreamReader(file, emit_chunks=True, record_size_limit=LONGEST_RECORD).records:
            if isinstance(record, Schema):
                channels.schemas.append(record)
            elif isinstance(record, Channel):
                channels.channels.append(record)
            elif isinstance(record, Chunk):
                chunks.append(around(record, _places(record)))
    return channels, chunks


def _places(chunk: Chunk) -> dict[int, list[tuple[int, int]]]:
    """Time and offset of every message by channel; ValueError and the like when the chunk is not whole."""
    if chunk.uncompressed_size > LONGEST_RECORD:
        raise ValueError("larger than any chunk of ours")
    stream, length = get_chunk_data_stream(chunk, validate_crc=True)
    data = stream.read(length)
    places: dict[int, list[tuple[int, int]]] = {}
    offset = 0
    while offset < length:
        _, size, channel, _, stamp_ns, _ = MESSAGE.unpack_from(data, offset)
        places.setdefault(channel, []).append((stamp_ns, offset))
        offset += size + OPCODE_AND_LENGTH
    return {channel: sorted(entries) for channel, entries in places.items()}
