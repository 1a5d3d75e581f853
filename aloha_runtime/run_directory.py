"""The run directory: the sockets and locks of one running rig, private to its user, and nothing left behind."""

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from aloha_runtime.errors import TransportError
from aloha_runtime.robot import ROLES, SIDES

IPC_PATH_LIMIT = 107
"""Bytes of a Unix socket's path (sun_path holds 108 with the terminating zero; man 7 unix)."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (the kernel's shared memory, names are ours and files are 0600)
RING = "aloha-ring-"
"""What the names of all frame rings begin with."""
GOALS = tuple(f"{role}_{side}.goals" for role in ROLES for side in SIDES)
"""What the arms processes were to hold last (`hardware.goal_memory`): kept for programs that start after a kill."""
RUN_LOCK = "run.lock"
"""Held by the owner of the run directory."""
RIG_FILE = "rig.yaml"
"""The configuration of the running rig, for its processes and for `aloha status`."""
SYSTEM_RUN_DIR = Path("/run/aloha")
"""Of a rig that systemd runs; it belongs to the user `aloha`."""
SYSTEM_LOG_DIR = Path("/var/lib/aloha/logs")
"""Logs of the flight recorder of such a rig."""
TEMPORARY = Path("/tmp")  # noqa: S108  (the owner of what lies there is checked)
_FIXED = (RIG_FILE, *GOALS)
"""Plain files of a run directory."""
_COMMAND_LIMIT = 160
_PLANTED = (errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO)
"""How `open` says that a path leads to what this program did not make: a link, somebody else's file, a folder, ..."""


def default_run_dir() -> Path:
    """The system's own where it is ours (`sudo -u aloha aloha status`), else `$XDG_RUNTIME_DIR/aloha`, or
    `/tmp/aloha-UID` where there is none. Anybody can put something there first: then, and as long as a rig runs there,
    it is a folder in this user's home."""
    if _is_ours(SYSTEM_RUN_DIR):
        return SYSTEM_RUN_DIR
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "aloha"
    shared, own = TEMPORARY / f"aloha-{os.getuid()}", _state_dir() / "run"
    return own if os.path.lexists(own) or (os.path.lexists(shared) and not _is_ours(shared)) else shared


def default_log_dir() -> Path:
    """Logs of the flight recorder: the system's own where they are ours, else `$XDG_STATE_HOME/aloha/logs`, which is
    `~/.local/state/aloha/logs` where nothing else is said."""
    return SYSTEM_LOG_DIR if _is_ours(SYSTEM_LOG_DIR) else _state_dir() / "logs"


def _state_dir() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "aloha"


def ring_prefix(run_dir: Path) -> str:
    """What the names of this run directory's frame rings in /dev/shm begin with."""
    return f"{RING}{hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:12]}-"


def socket_path(run_dir: Path, name: str) -> Path:
    """Path of a Unix socket in the run directory; TransportError when it is too long for the kernel."""
    path = run_dir / name
    length = len(os.fsencode(path))
    if length > IPC_PATH_LIMIT:
        raise TransportError(
            f"socket path {path} has {length} bytes, the kernel allows {IPC_PATH_LIMIT}: "
            "choose a shorter run directory with --run-dir"
        )
    return path


def check_run_dir(path: Path) -> None:
    """Raise TransportError unless `path` is a directory of this user that nobody else can enter."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise TransportError(f"no run directory {path}: nothing runs there; start the rig with `aloha up`") from None
    if not stat.S_ISDIR(status.st_mode):
        raise TransportError(f"run directory {path} is not a directory: remove it or choose another with --run-dir")
    if status.st_uid != os.getuid():
        raise TransportError(
            f"run directory {path} belongs to user {status.st_uid}, not to you ({os.getuid()}): "
            "choose another with --run-dir"
        )
    if status.st_mode & 0o077:
        raise TransportError(
            f"run directory {path} is open to others (mode {status.st_mode & 0o777:o}): choose another with --run-dir, "
            f"or, where nobody else needs it, `chmod 700 {path}`"
        )


class Lock:
    """An exclusive flock with its holder's pid and command inside; the kernel frees it when the holder dies."""

    def __init__(self, path: Path, taken: str) -> None:
        """Take it or raise TransportError(`taken`) with {pid} and {command} of the holder filled in."""
        self.path = path
        while True:
            self._fd = _open_own(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, _, command = os.pread(self._fd, 4096, 0).decode(errors="replace").partition(" ")
                os.close(self._fd)
                raise TransportError(taken.format(pid=pid or "unknown", command=command or "?")) from None
            if same_file(self._fd, path):
                break
            os.close(self._fd)  # the last holder removed it between our open and our lock
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()} {' '.join(sys.argv)[:_COMMAND_LIMIT]}".encode(), 0)

    def release(self) -> None:
        """Remove the file and the socket of the same name (libzmq leaves it), then free the lock; twice is harmless."""
        if self._fd >= 0:
            self.path.with_suffix(".ipc").unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def same_file(fd: int, path: Path) -> bool:
    """Whether `path` still is the open file: somebody may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def own_files(prefix: str) -> list[Path]:
    """Files of this user in shared memory whose names begin with `prefix`. Whatever somebody else has put there, and
    every link, is passed over: it is none of a rig's."""
    return [path for path in SHARED_MEMORY.glob(f"{prefix}*") if _is_ours(path, stat.S_ISREG)]


def _is_ours(path: Path, kind: Callable[[int], bool] = stat.S_ISDIR) -> bool:
    try:
        status = path.lstat()
    except OSError:  # absent, or behind a door that is closed to us
        return False
    return kind(status.st_mode) and status.st_uid == os.getuid()


def _open_own(path: Path, flags: int) -> int:
    """Descriptor of a plain file of this user; TransportError for anything else that lies there, such as a link or a
    pipe that somebody planted. FileNotFoundError when it is absent."""
    what = "a link, or closed to this user"
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno not in _PLANTED:
            raise
    else:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
            return fd
        os.close(fd)
        what = f"no plain file of yours (owner {status.st_uid}, mode {status.st_mode:o})"
    raise TransportError(f"{path} is {what}: no rig made it; remove it, or choose another directory with --run-dir")


def _is_foreign(path: Path) -> bool:
    """Whether something in a run directory was put there by somebody else: dead processes of ours leave sockets, locks
    with a pid inside, and the links of emulated adapters."""
    try:
        status = path.lstat()
        if status.st_uid != os.getuid():
            return True
        if stat.S_ISLNK(status.st_mode):
            return path.name in _FIXED or not os.readlink(path).startswith("/dev/")
        if not stat.S_ISREG(status.st_mode):
            return path.suffix != ".ipc" or not stat.S_ISSOCK(status.st_mode)
        if path.suffix == ".lock":
            written = path.read_bytes()[:64]
            return bool(written) and not written.split(b" ")[0].isdigit()
    except FileNotFoundError:  # of a process that ends just now
        return False
    return path.name not in _FIXED and not (path.suffix == ".ipc" and status.st_size == 0)


def lock_holder(path: Path) -> int | None:
    """Pid of the live process that holds the lock file (or ring) at `path`, 0 if unreadable; None when nobody does.
    TransportError where something lies there that is no file of this user."""
    try:
        fd = _open_own(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        pid = os.pread(fd, 64, 0).split(b" ")[0]
        return int(pid) if pid.isdigit() else 0
    finally:
        os.close(fd)


class RunDirectory:
    """The run directory as its owner (`aloha up`, the simulated rig, a test) holds it. A context manager."""

    def __init__(self, path: Path | None = None) -> None:
        """Create it 0700, take it, and remove what dead processes left.

        TransportError when it belongs to somebody else, is open to others, is in use, or its path is too long; also
        when it holds files that no rig made, because their locks and links would be taken for dead ones.
        """
        self.path = (path or default_run_dir()).absolute()
        socket_path(self.path, "camera.cam_right_wrist.ipc")  # the longest usual name: fail here, not in a camera
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise TransportError(
                f"cannot create run directory {self.path} ({error.strerror}): choose another with --run-dir"
            ) from None
        check_run_dir(self.path)
        self._lock = Lock(
            self.path / RUN_LOCK,
            f"run directory {self.path} is in use by pid {{pid}} ({{command}}): end it with `aloha down` "
            "or choose another with --run-dir",
        )
        foreign = sorted(path.name for path in self.path.iterdir() if _is_foreign(path))
        if foreign:
            self._lock.release()
            raise TransportError(
                f"run directory {self.path} holds other files ({foreign[0]}): choose an empty or new one with --run-dir"
            )
        self.stale = self._remove_dead()

    def _remove_dead(self) -> list[str]:
        """Remove sockets, locks, links and rings that no live process holds; returns their names."""
        removed = []
        for lock in self.path.glob("*.lock"):
            if lock.name != RUN_LOCK and lock_holder(lock) is None:
                lock.unlink(missing_ok=True)
                removed.append(lock.name)
        for socket in self.path.glob("*.ipc"):
            if lock_holder(socket.with_suffix(".lock")) is None:
                socket.unlink(missing_ok=True)
                removed.append(socket.name)
        for link in filter(Path.is_symlink, self.path.glob("*")):  # the stable name of an emulated adapter
            if lock_holder(link.with_suffix(".lock")) is None:
                link.unlink(missing_ok=True)
                removed.append(link.name)
        for ring in own_files(RING):  # of any run directory: a temporary one never comes back
            if lock_holder(ring) is None:
                ring.unlink(missing_ok=True)
                removed.append(ring.name)
        return removed

    def cleanup(self) -> None:
        """Remove every socket, lock and ring of dead processes and the remembered goals, then the directory; call when
        the children are gone."""
        self._remove_dead()
        for name in GOALS:
            (self.path / name).unlink(missing_ok=True)
        self._lock.release()
        with contextlib.suppress(OSError):  # a live process still has its socket there, or it is systemd's directory
            self.path.rmdir()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()
