"""A disk that stalls or is full, for one process and one folder: its writes wait, or fail, in the kernel.

Seccomp's user notification (man 2 seccomp, `SECCOMP_RET_USER_NOTIF`): the kernel stops the thread that writes, opens,
makes, renames or removes something, as a slow disk does, whichever library it is in, and asks us. Needs no rights;
x86-64 and Linux 5.5 or later.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import threading
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER = 317, 1, 8
_ARCH_X86_64 = 0xC000003E
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
"""Instructions of classic BPF: load a word of `struct seccomp_data`, compare, answer."""
WRITES = {1: "write", 18: "pwrite64", 20: "writev", 285: "fallocate"}
SYNCS = {74: "fsync", 75: "fdatasync", 77: "ftruncate"}
"""Numbers of the calls that are asked about; each has the file descriptor first."""
NAMES = {2: ("open", 0), 82: ("rename", 0), 83: ("mkdir", 0), 84: ("rmdir", 0), 87: ("unlink", 0)}
NAMES |= {257: ("openat", 1), 258: ("mkdirat", 1), 263: ("unlinkat", 1), 264: ("renameat", 1), 316: ("renameat2", 1)}
"""The same of calls by name, and which argument is the path; where it is the second, the first is the directory."""
_PAGE = 4096
"""Bytes of a page of memory, and of the longest path (PATH_MAX)."""
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_QUESTION, _ANSWER = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_CONTINUE = 1
_LOOK_S = 0.05


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_void_p))


def supported() -> bool:
    """Whether this kernel and machine can hold writes back."""
    available = Path("/proc/sys/kernel/seccomp/actions_avail")
    return platform.machine() == "x86_64" and available.exists() and "user_notif" in available.read_text().split()


class HeldDisk:
    """A context. Start the process with `install` as its `preexec_fn`; then `stall`, `fill` and `mend` at will."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder.resolve())
        self._ours, self._theirs = socket.socketpair()
        self._state = "well"
        self._held: list[int] = []
        """Questions that wait for an answer."""
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self.stopped_calls = 0
        self._thread = threading.Thread(target=self._run, name="held disk", daemon=True)

    def __enter__(self) -> "HeldDisk":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def install(self) -> None:
        """In the child, between fork and exec: from now on its writes are asked about."""
        _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        numbers = [*WRITES, *SYNCS, *NAMES]
        code = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, _ARCH_X86_64), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
        code += [(_JUMP_IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
        code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
        packed = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in code))
        program = _Program(len(code), ctypes.addressof(packed))
        listener = _LIBC.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
        if listener < 0:
            raise OSError(ctypes.get_errno(), "seccomp")
        socket.send_fds(self._theirs, [b"!"], [listener])
        os.close(listener)

    def stall(self) -> None:
        """From now on nothing that is written gets on."""
        self._state = "stalled"

    def fill(self) -> None:
        """From now on there is no space left."""
        self._state = "full"

    def mend(self) -> None:
        """All is well again; what waited goes on."""
        with self._guard:
            self._state = "well"
            held, self._held = self._held, []
        for question in held:
            self._answer(question, _CONTINUE)

    def _run(self) -> None:
        with contextlib.suppress(OSError, IndexError):  # ended before any process asked for it
            _, descriptors, _, _ = socket.recv_fds(self._ours, 1, 1)
            self._listener = descriptors[0]
            try:
                self._listen()
            finally:
                os.close(self._listener)

    def _listen(self) -> None:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        while not self._ended.is_set():
            for _, events in waiting.poll(_LOOK_S * 1e3):
                if events & select.POLLHUP:
                    return
                self._take()

    def _take(self) -> None:
        question = bytearray(_QUESTION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, question)
        except OSError:
            return  # the thread was killed meanwhile
        number, pid, _, call, _, _, *arguments = _QUESTION.unpack(question)
        concerned = self._state != "well" and _target(pid, call, arguments).startswith(self._folder)
        with self._guard:
            if concerned and self._state == "stalled":
                self.stopped_calls += 1
                self._held.append(number)
                return
        if concerned and self._state == "full" and call in WRITES:
            self.stopped_calls += 1
            self._answer(number, 0, -errno.ENOSPC)
        else:
            self._answer(number, _CONTINUE)

    def _answer(self, number: int, flags: int, error: int = 0) -> None:
        with contextlib.suppress(OSError):  # the thread was killed meanwhile
            fcntl.ioctl(self._listener, _SEND, bytearray(_ANSWER.pack(number, 0, error, flags)))


def _target(pid: int, call: int, arguments: list[int]) -> str:
    """The path that a call of a thread is about; empty when the thread is gone."""
    try:
        if call not in NAMES:
            return os.readlink(f"/proc/{pid}/fd/{arguments[0]}")
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            start = arguments[NAMES[call][1]]
            memory.seek(start)
            # Up to the end of the page at least: what is behind it may be nobody's memory.
            content = memory.read(_PAGE - start % _PAGE)
            if b"\0" not in content:
                content += memory.read(_PAGE)
        path = os.fsdecode(content.split(b"\0", 1)[0])
        if NAMES[call][1] and not path.startswith("/"):
            path = os.path.join(os.readlink(f"/proc/{pid}/fd/{arguments[0]}"), path)
        return path
    except (OSError, ValueError, OverflowError):
        return ""
