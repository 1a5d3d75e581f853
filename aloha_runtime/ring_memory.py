"""Frame rings: camera pixels in shared memory, written once and read in place by any number of processes.

A ring is a file in /dev/shm that one writer holds under flock while it lives. Each slot has its sequence number before
and after the pixels: the writer changes the first before it touches the pixels and the second when they are whole, so a
reader whose slot was overwritten meanwhile knows it and gets nothing, never a torn frame. A ring's name has the camera
and a random number of its own, so a restarted writer (even with another geometry) is a new ring, and a reader moves on
to it with the first `FrameInfo` that names it. Nobody can put a file in its place, since nobody can foresee the name.
"""

import errno
import fcntl
import mmap
import os
import secrets
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import TransportError
from aloha_runtime.messages import FrameInfo
from aloha_runtime.run_directory import RING, SHARED_MEMORY, lock_holder, own_files, ring_prefix, same_file

Image = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB."""

SLOTS = 8
"""Frames a ring holds: at 60 fps 117 ms until a slot is reused, more than the maximum age of a frame."""
_PAGE = mmap.PAGESIZE
_HOLDER_BYTES = 64  # the writer's pid, as in a lock file
_GEOMETRY = slice(8, 12)  # of the 64-bit words of the first page: magic, slots, height, width
_MAGIC = 0x616C6F68615F7231
_SLOT_WORDS = 512 // 8  # before, after, stamp; one slot's words share no cache line with the next one's
_BEFORE, _AFTER, _STAMP = 0, 1, 2
_barrier = threading.Lock()


def _fence() -> None:
    """Order memory accesses before and after it, on ARM as well: two acquire-release pairs of a lock."""
    with _barrier:
        pass
    with _barrier:
        pass


@dataclass(frozen=True)
class _Geometry:
    slots: int
    height: int
    width: int

    @property
    def frame_bytes(self) -> int:
        return self.height * self.width * 3

    @property
    def slot_bytes(self) -> int:
        return -(-self.frame_bytes // _PAGE) * _PAGE

    @property
    def head_bytes(self) -> int:
        return _PAGE + -(-self.slots * _SLOT_WORDS * 8 // _PAGE) * _PAGE

    @property
    def total_bytes(self) -> int:
        return self.head_bytes + self.slots * self.slot_bytes


class _Mapping:
    """The arrays of a mapped ring."""

    def __init__(self, memory: mmap.mmap, geometry: _Geometry) -> None:
        self.geometry = geometry
        self.words = np.frombuffer(memory, np.uint64, geometry.slots * _SLOT_WORDS, _PAGE).reshape(-1, _SLOT_WORDS)
        offsets = [geometry.head_bytes + slot * geometry.slot_bytes for slot in range(geometry.slots)]
        shape = (geometry.height, geometry.width, 3)
        self.images: list[Image] = [
            np.frombuffer(memory, np.uint8, geometry.frame_bytes, offset).reshape(shape) for offset in offsets
        ]


class RingWriter:
    """The one writer of a camera's ring."""

    def __init__(self, run_dir: Path, camera: str, shape: tuple[int, int], slots: int = SLOTS) -> None:
        """Create the ring for frames of `shape` (height, width) and remove those of dead writers of this camera.

        TransportError when shared memory is full, or a live process writes this camera.
        """
        self.camera = camera
        self.seq = 0
        prefix = f"{ring_prefix(run_dir)}{camera}-"
        _remove_dead(prefix, camera)
        geometry = _Geometry(slots, *shape)
        self._path, self._fd = create_held(prefix)
        try:
            _allocate(self._fd, geometry.total_bytes, camera)
        except BaseException:
            self.close()
            raise
        memory = mmap.mmap(self._fd, geometry.total_bytes)
        memory[:_HOLDER_BYTES] = f"{os.getpid()} ".encode().ljust(_HOLDER_BYTES)
        words = np.frombuffer(memory, np.uint64, _PAGE // 8)
        words[_GEOMETRY] = (_MAGIC, slots, *shape)
        self._mapping = _Mapping(memory, geometry)

    @property
    def name(self) -> str:
        """Name of the ring, as `FrameInfo.ring` carries it."""
        return self._path.name

    def write(self, image: Image, stamp_ns: int, seq: int | None = None) -> FrameInfo:
        """Copy a (height, width, 3) uint8 image into the next slot; ValueError for any other shape or type.

        `seq`: its number, higher than the last one; the next by default.
        """
        expected = self._mapping.images[0].shape
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"camera {self.camera}: frame is {image.dtype} {image.shape}, not uint8 {expected}")
        self.seq = self.seq + 1 if seq is None else seq
        slot = self.seq % self._mapping.geometry.slots
        words = self._mapping.words[slot]
        words[_BEFORE] = self.seq
        _fence()
        np.copyto(self._mapping.images[slot], image)
        words[_STAMP] = stamp_ns
        _fence()
        words[_AFTER] = self.seq
        height, width, _ = expected
        return FrameInfo(
            stamp_ns=stamp_ns,
            seq=self.seq,
            camera=self.camera,
            height=height,
            width=width,
            ring=self.name,
            slot=slot,
        )

    def close(self) -> None:
        """Remove the ring; readers keep what they have mapped until they move on."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def create_held(prefix: str) -> tuple[Path, int]:
    """A new file in shared memory that this process holds, by a name that nobody could foresee; again when a rig that
    starts just now took it for a dead one's."""
    while True:
        path = SHARED_MEMORY / f"{prefix}{secrets.token_hex(16)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if same_file(fd, path):
            return path, fd
        os.close(fd)


def _remove_dead(prefix: str, camera: str) -> None:
    for path in own_files(prefix):
        holder = lock_holder(path)
        if holder is not None:
            raise TransportError(f"camera {camera} is written by pid {holder} already: stop that process first")
        path.unlink(missing_ok=True)


def _allocate(fd: int, size: int, camera: str) -> None:
    """Reserve the pages now: on a full tmpfs the first touch of an unreserved page would kill the process (SIGBUS)."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM):
            raise
        status = os.statvfs(SHARED_MEMORY)
        free = status.f_bavail * status.f_frsize
        raise TransportError(
            f"no shared memory left for camera {camera}: its ring needs {size / 2**20:.1f} MiB, {SHARED_MEMORY} has "
            f"{free / 2**20:.1f} MiB free; stop another rig, remove stale /dev/shm/aloha-ring-* files, enlarge it "
            "(`mount -o remount,size=512M /dev/shm`, in a container --shm-size=512m) or lower the resolution"
        ) from None


class FrameView:
    """A frame in place, without a copy. Use `image`, then ask `valid()`: only then was it whole during the use."""

    def __init__(self, image: Image, words: NDArray[np.uint64], seq: int, stamp_ns: int) -> None:
        self.image = image
        self.stamp_ns = stamp_ns
        self._words = words
        self._seq = seq

    def valid(self) -> bool:
        """Whether the writer has not come back to this slot so far."""
        _fence()
        return int(self._words[_BEFORE]) == self._seq


class RingReader:
    """A reader of one camera's rings, whichever ring the latest `FrameInfo` names.

    `overwritten`: frames that came too late for, because the writer had gone round or its ring was gone.
    """

    def __init__(self) -> None:
        self.overwritten = 0
        self._name = ""
        self._mapping: _Mapping | None = None

    def _map(self, name: str) -> _Mapping | None:
        if name != self._name:
            self._mapping = _open(name)
            self._name = name
        return self._mapping

    def view(self, info: FrameInfo) -> FrameView | None:
        """The frame in place (read-only), None when it is gone already. Check `valid()` after using it."""
        mapping = self._map(info.ring)
        if mapping is not None and 0 <= info.slot < mapping.geometry.slots:
            words = mapping.words[info.slot]
            if int(words[_AFTER]) == info.seq == int(words[_BEFORE]):
                _fence()
                return FrameView(mapping.images[info.slot], words, info.seq, int(words[_STAMP]))
        self.overwritten += 1
        return None

    def read(self, info: FrameInfo, out: Image | None = None) -> Image | None:
        """A copy of the frame, (height, width, 3) uint8 RGB, into `out` when it is given; None when it was overwritten
        before or during the copy (`out` then holds nothing of use)."""
        view = self.view(info)
        if view is None:
            return None
        if out is None:
            out = np.empty_like(view.image)
        np.copyto(out, view.image)
        if view.valid():
            return out
        self.overwritten += 1
        return None

    def close(self) -> None:
        """Unmap the ring, as soon as nobody looks at a frame of it any more."""
        self._mapping, self._name = None, ""


def _open(name: str) -> _Mapping | None:
    """Map a ring to read; None when it is gone, is not a ring, or is somebody else's (who could cut it off)."""
    if "/" in name or not name.startswith(RING):
        return None
    try:
        fd = os.open(SHARED_MEMORY / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):  # a NUL in the name
        return None
    try:
        status = os.fstat(fd)
        size = status.st_size
        if size < _PAGE or not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            return None
        memory = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    magic, *geometry = (int(word) for word in np.frombuffer(memory, np.uint64, _PAGE // 8)[_GEOMETRY])
    if magic != _MAGIC or _Geometry(*geometry).total_bytes != size:
        return None
    return _Mapping(memory, _Geometry(*geometry))
