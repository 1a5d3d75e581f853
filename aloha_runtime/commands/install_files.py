"""What an installation is made of: files below a root, a manifest of them, and what differs from what is there.

No link below the root is followed (`inside.py`), so that nothing outside of it is written or removed.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec

from aloha_runtime import durable, inside
from aloha_runtime.errors import AlohaError, ConfigError

MANIFEST = "etc/aloha/installed.json"
Files = Mapping[str, bytes | Path]
"""Path below the root -> content, or the target of a link."""


class Manifest(msgspec.Struct):
    """What an installation wrote: path below the root -> sha256 of its content (or of a link's target), and the folders
    that it made."""

    files: dict[str, str] = {}
    folders: list[str] = []


def changes(root: Path, files: Files, before: Manifest) -> dict[str, str]:
    """What differs from what is there: path -> new, changed or removed. ConfigError for files that are not ours, and
    AlohaError for a link on the way to one."""
    found: dict[str, str] = {}
    for path, content in files.items():
        there, wanted = _digest_of(root, path), _digest(content)
        if there and there not in (wanted, before.files.get(path)):
            raise ConfigError(
                f"{root / path} is not as this command wrote it: keep what you need of it elsewhere (units: `systemctl"
                " edit`; the rig: the file that you install from), remove it, and install again"
            )
        if there != wanted:
            found[path] = "changed" if there else "new"
    return {**found, **dict.fromkeys(_gone(root, files, before), "removed")}


def write(root: Path, files: Files, before: Manifest) -> None:
    """Files one by one, each whole when it appears; then what is no longer wanted goes. The manifest is last, so that
    an interrupted installation is completed by the next."""
    folders = list(before.folders)
    durable.make_directory(root.absolute())
    for path in [*files, MANIFEST]:
        missing = [str(folder) for folder in Path(path).parents[:-1] if inside.status(root, folder) is None]
        folders += reversed(missing)
    for path, content in files.items():
        if _digest_of(root, path) != _digest(content):
            _publish(root, path, content)
    for path in _gone(root, files, before):
        inside.unlink(root, Path(path))
    listed = Manifest({path: _digest(content) for path, content in files.items()}, list(dict.fromkeys(folders)))
    _publish(root, MANIFEST, msgspec.json.format(msgspec.json.encode(listed)))


def _gone(root: Path, files: Files, before: Manifest) -> list[str]:
    """What an earlier installation wrote, nobody changed, and this one does not want."""
    return [path for path, digest in before.files.items() if path not in files and _digest_of(root, path) == digest]


def remove(root: Path, before: Manifest, dry_run: bool) -> list[tuple[str, bool]]:
    """Take away what the manifest lists; returns each path and whether it was removed: a file changed since stays, and
    so does one to which a link leads."""
    found = [(path, _is_removable(root, path, digest)) for path, digest in before.files.items()]
    if dry_run:
        return found
    for path, removed in found:
        if removed:
            inside.unlink(root, Path(path))
    inside.unlink(root, Path(MANIFEST))
    for folder in sorted(before.folders, key=len, reverse=True):
        with contextlib.suppress(AlohaError):
            inside.remove_empty(root, Path(folder))  # unless it holds something else by now
    return found


def _is_removable(root: Path, path: str, digest: str) -> bool:
    try:
        return _digest_of(root, path) in (digest, "")
    except AlohaError:
        return False


def _publish(root: Path, path: str, content: bytes | Path) -> None:
    final = Path(path)
    aside = final.with_name(f".{final.name}.aloha")
    inside.unlink(root, aside)  # of an installation that was cut off
    inside.write_new(root, aside, content)
    inside.move(root, aside, final)
    inside.sync_folder(root, final)


def manifest(root: Path) -> Manifest:
    """The one below `root`, empty when nothing is installed; AlohaError when it is damaged."""
    try:
        found = msgspec.json.decode(inside.read(root, Path(MANIFEST)), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except msgspec.DecodeError as error:
        raise AlohaError(
            f"{root / MANIFEST} is damaged ({error}): remove it, and what else it installed, by hand"
        ) from None
    for path in [*found.files, *found.folders]:
        if Path(path).is_absolute() or ".." in Path(path).parts or not Path(path).parts:
            raise AlohaError(
                f"{root / MANIFEST} lists {path!r}, which does not lie inside {root}: this program did not write that."
                " Remove it, and what was installed, by hand"
            )
    return found


def _digest_of(root: Path, path: str) -> str:
    """sha256 of a file or of a link's target; empty when there is none. AlohaError for a link on the way to it."""
    there = inside.status(root, Path(path))
    if there is None:
        return ""
    if stat.S_ISLNK(there.st_mode):
        return _digest(Path(inside.read_link(root, Path(path)) or ""))
    return inside.digest(root, Path(path)) or "no file"


def _digest(content: bytes | Path) -> str:
    data = content if isinstance(content, bytes) else os.fsencode(content)
    return hashlib.sha256(data).hexdigest()
