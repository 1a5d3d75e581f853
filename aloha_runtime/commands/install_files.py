"""What an installation is made of: files below a root, a manifest of them, and what differs from what is there."""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from aloha_runtime import durable
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
    """What differs from what is there: path -> new, changed or removed. ConfigError for files that are not ours."""
    found: dict[str, str] = {}
    for path, content in files.items():
        there, wanted = _digest_of(root / path), _digest(content)
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
    for path in [*files, MANIFEST]:
        for folder in reversed(Path(path).parents[:-1]):
            if not (root / folder).exists():
                durable.make_directory(root / folder)
                folders.append(str(folder))
    for path, content in files.items():
        if _digest_of(root / path) != _digest(content):
            _publish(root / path, content)
    for path in _gone(root, files, before):
        (root / path).unlink(missing_ok=True)
    listed = Manifest({path: _digest(content) for path, content in files.items()}, folders)
    _publish(root / MANIFEST, msgspec.json.format(msgspec.json.encode(listed)))


def _gone(root: Path, files: Files, before: Manifest) -> list[str]:
    """What an earlier installation wrote, nobody changed, and this one does not want."""
    return [path for path, digest in before.files.items() if path not in files and _digest_of(root / path) == digest]


def remove(root: Path, before: Manifest, dry_run: bool) -> list[tuple[str, bool]]:
    """Take away what the manifest lists; returns each path and whether it was removed: a file changed since stays."""
    found = [(path, _digest_of(root / path) in (digest, "")) for path, digest in before.files.items()]
    if dry_run:
        return found
    for path, removed in found:
        if removed:
            (root / path).unlink(missing_ok=True)
    (root / MANIFEST).unlink()
    for folder in sorted(before.folders, key=len, reverse=True):
        with contextlib.suppress(OSError):  # it holds something else by now
            (root / folder).rmdir()
    return found


def _publish(path: Path, content: bytes | Path) -> None:
    aside = path.with_name(f".{path.name}.aloha")
    aside.unlink(missing_ok=True)
    if isinstance(content, bytes):
        aside.write_bytes(content)
        aside.chmod(0o644)
        durable.sync(aside)
    else:
        aside.symlink_to(content)
    aside.replace(path)
    durable.sync(path.parent)


def manifest(root: Path) -> Manifest:
    """The one below `root`, empty when nothing is installed; AlohaError when it is damaged."""
    try:
        return msgspec.json.decode((root / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except msgspec.DecodeError as error:
        raise AlohaError(
            f"{root / MANIFEST} is damaged ({error}): remove it, and what else it installed, by hand"
        ) from None


def _digest_of(path: Path) -> str:
    """sha256 of a file or of a link's target; empty when there is none."""
    if path.is_symlink():
        return _digest(Path(os.readlink(path)))
    return _digest(path.read_bytes()) if path.is_file() else ""


def _digest(content: bytes | Path) -> str:
    data = content if isinstance(content, bytes) else os.fsencode(content)
    return hashlib.sha256(data).hexdigest()
