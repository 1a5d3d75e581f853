"""Files below a folder, reached one step after the other from the folder's descriptor.

No link on the way is followed, also when somebody puts one there between two steps: each step is opened with
O_NOFOLLOW, relative to the one before. The folder itself may be reached through links: its owner named it.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

from aloha_runtime.errors import AlohaError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _steps(root: Path, path: Path) -> tuple[str, ...]:
    """The names from `root` down to `path`, which is below it or relative to it; AlohaError for any other."""
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise AlohaError(f"{path} does not lie inside {root}: nothing is done there")
    return relative.parts


def _refusal(root: Path, parts: tuple[str, ...]) -> AlohaError:
    return AlohaError(
        f"{root.joinpath(*parts)} is a link, or no folder: what leads out of {root} is not used."
        " Put what it stands for in its place."
    )


@contextlib.contextmanager
def folder_of(root: Path, path: Path, make: bool = False) -> Iterator[tuple[int, str]]:
    """A descriptor of the folder that holds `path`, and the last name of `path`. `make`: folders that are missing are
    made and synced. AlohaError for a link on the way, FileNotFoundError for a folder that is missing."""
    *folders, name = _steps(root, path)
    here = os.open(root, _FOLDER)
    try:
        for count, step in enumerate(folders, 1):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, dir_fd=here)
                    os.fsync(here)
            try:
                below = os.open(step, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
            except NotADirectoryError:
                raise _refusal(root, tuple(folders[:count])) from None
            except OSError as error:
                if _is_link(step, here):
                    raise _refusal(root, tuple(folders[:count])) from None
                raise error
            os.close(here)
            here = below
        yield here, name
    finally:
        os.close(here)


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode)
    except OSError:
        return False


def move(root: Path, source: Path, target: Path) -> None:
    """Give a file or a folder below `root` another name below it, in place of what has that name. Links that have
    either name are moved or replaced themselves."""
    with folder_of(root, source) as (there, old), folder_of(root, target, make=True) as (here, new):
        os.rename(old, new, src_dir_fd=there, dst_dir_fd=here)


def move_to_new(root: Path, source: Path, target: Path) -> None:
    """As `move`; FileExistsError where the name is taken."""
    with folder_of(root, target, make=True) as (here, new):
        try:
            os.lstat(new, dir_fd=here)
        except FileNotFoundError:
            pass
        else:
            raise FileExistsError(17, os.strerror(17), str(target))
    move(root, source, target)


def digest(root: Path, path: Path) -> str:
    """sha256 of a plain file; empty when there is none of that name, or something else has it."""
    try:
        with folder_of(root, path) as (folder, name):
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, AlohaError):
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ""
        return hashlib.file_digest(file, "sha256").hexdigest()


def status(root: Path, path: Path) -> os.stat_result | None:
    """What has that name itself (no link is followed); None when nothing has. AlohaError for a link on the way."""
    try:
        with folder_of(root, path) as (folder, name):
            return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None


def read(root: Path, path: Path) -> bytes:
    """Content of a plain file. AlohaError for a link, FileNotFoundError when it is missing."""
    with folder_of(root, path) as (folder, name):
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if _is_link(name, folder):
                raise _refusal(root, _steps(root, path)) from None
            raise error
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _refusal(root, _steps(root, path))
        return file.read()


def read_link(root: Path, path: Path) -> str | None:
    """Where a link points; None when there is none of that name."""
    try:
        with folder_of(root, path) as (folder, name):
            return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def write_new(root: Path, path: Path, content: bytes | Path, mode: int = 0o644) -> None:
    """A file, synced, or a link (`content` is its target), under a name that nothing has yet (FileExistsError)."""
    with folder_of(root, path, make=True) as (folder, name):
        if isinstance(content, PurePath):
            os.symlink(content, name, dir_fd=folder)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, mode, dir_fd=folder), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def unlink(root: Path, path: Path) -> None:
    """Take a name away; the caller has proved that this program wrote what has it. Nothing when it is gone already."""
    with contextlib.suppress(FileNotFoundError), folder_of(root, path) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_empty(root: Path, path: Path) -> bool:
    """Take an empty folder away; False for one that holds something, or that is not there."""
    try:
        with folder_of(root, path) as (folder, name):
            os.rmdir(name, dir_fd=folder)
    except OSError:
        return False
    return True


def sync_folder(root: Path, path: Path) -> None:
    """The names in the folder that holds `path` survive a power cut."""
    with folder_of(root, path) as (folder, _):
        os.fsync(folder)


def links(root: Path, *tops: str) -> Iterator[Path]:
    """Every link in these entries of `root`, at any depth."""
    waiting = [root / top for top in tops]
    while waiting:
        path = waiting.pop()
        try:
            if stat.S_ISLNK(os.lstat(path).st_mode):
                yield path
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        yield path / entry.name
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(path / entry.name)
        except (FileNotFoundError, NotADirectoryError):
            continue
