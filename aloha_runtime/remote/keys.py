"""CURVE keys of this machine, and those of the machines it speaks with: `aloha keys`.

A folder of its user alone: `private.key` (32 bytes as hex, mode 0600) and `allowed.txt`, one `KEY NAME` a line. Keys
are written in hex, not in ZeroMQ's Z85, so that a person can paste them into a shell. The public key follows from the
private one (Curve25519), so that the two cannot disagree.
"""

import binascii
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from aloha_runtime.errors import ConfigError

SYSTEM_KEYS = Path("/etc/aloha/keys")
"""Of a rig that systemd runs; it belongs to the user `aloha`."""
PRIVATE, ALLOWED = "private.key", "allowed.txt"
KEY_HEX = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True)
class Peer:
    """A machine that may speak with this one. `key`: its public key, 64 hex digits."""

    key: str
    name: str


def default_keys_dir() -> Path:
    """The system's where it is ours, else `$XDG_CONFIG_HOME/aloha/keys`."""
    try:
        if SYSTEM_KEYS.stat().st_uid == os.getuid():
            return SYSTEM_KEYS
    except OSError:
        pass
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "aloha" / "keys"


class Keys:
    """The keys in one folder. Raises ConfigError with what to type wherever something is missing or open to others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def create(self) -> str:
        """Make a private key; returns the public one. Refuses to replace a key, which others may have allowed."""
        path = self.directory / PRIVATE
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_open(self.directory, 0o022, "700")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            raise ConfigError(
                f"{path} is there already; `aloha keys show` prints its public key. Remove the file first "
                "to replace it; who has allowed the old one has to allow the new one"
            ) from None
        with os.fdopen(handle, "w") as file:
            file.write(to_hex(zmq.curve_keypair()[1]) + "\n")
        return self.public()

    def private(self) -> bytes:
        """The private key, as ZeroMQ wants it (Z85)."""
        path = self.directory / PRIVATE
        text = _read_own(path, 0o077, "600", "make one with `aloha keys new`").strip()
        if not KEY_HEX.fullmatch(text):
            raise ConfigError(f"{path} does not hold a key of 64 hex digits: remove it and run `aloha keys new`")
        return to_z85(text)

    def public(self) -> str:
        """The public key, 64 hex digits."""
        return to_hex(zmq.curve_public(self.private()))

    def allowed(self) -> list[Peer]:
        """The allow-list; never empty."""
        path = self.directory / ALLOWED
        hint = "allow the other machine's key with `aloha keys allow KEY NAME`"
        peers = []
        for number, line in enumerate(_read_own(path, 0o022, "600", hint).splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not KEY_HEX.fullmatch(words[0]) or not NAME.fullmatch(words[1]):
                raise ConfigError(f"{path}:{number}: {line[:80]!r} is not `KEY NAME` (64 hex digits, a word)")
            peers.append(Peer(*words))
        if not peers:
            raise ConfigError(f"{path} allows nobody: {hint}")
        return peers

    def has_allowed(self) -> bool:
        """Whether there is an allow-list."""
        return (self.directory / ALLOWED).exists()

    def allow(self, key: str, name: str) -> None:
        """Add a machine to the allow-list."""
        key = key.strip().lower()
        if not KEY_HEX.fullmatch(key):
            raise ConfigError(f"{key[:80]!r} is no public key (64 hex digits, as `aloha keys show` prints it there)")
        if not NAME.fullmatch(name):
            raise ConfigError(f"{name[:80]!r} is no name: letters, digits, `_`, `.` and `-`, at most 63")
        path = self.directory / ALLOWED
        if key == self.public():
            raise ConfigError("this is this machine's own key: give the one that `aloha keys show` prints on the other")
        known = self.allowed() if self.has_allowed() else []
        for peer in known:
            if peer.name == name or peer.key == key:
                raise ConfigError(f"{path} has {peer.name} with key {peer.key} already: edit that line")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(f"{key} {name}\n")

    def peer(self, name: str) -> Peer:
        """The machine of that name; without a name the only one there is."""
        peers = self.allowed()
        chosen = [peer for peer in peers if not name or peer.name == name]
        if len(chosen) != 1:
            there = ", ".join(peer.name for peer in peers)
            problem = f"{name} is not among the allowed machines" if name else "several machines are allowed"
            raise ConfigError(f"{problem} ({there}): name one of them, as in tcp://{peers[0].name}@HOST:PORT")
        return chosen[0]


def to_hex(key: bytes) -> str:
    """A key in Z85 as hex."""
    return binascii.hexlify(z85.decode(key)).decode()


def to_z85(key: str) -> bytes:
    """A key in hex as ZeroMQ wants it."""
    return bytes(z85.encode(binascii.unhexlify(key)))


def _read_own(path: Path, forbidden: int, mode: str, hint: str) -> str:
    """Text of a file that is ours and, as far as `forbidden` says, closed to others."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist: {hint}")
    _refuse_open(path.parent, 0o022, "700")
    _refuse_open(path, forbidden, mode)
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})") from None


def _refuse_open(path: Path, forbidden: int, mode: str) -> None:
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0):
        raise ConfigError(f"{path} belongs to user {status.st_uid}, not to you ({os.getuid()}): make keys of your own")
    if stat.S_IMODE(status.st_mode) & forbidden:
        raise ConfigError(f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):o}): `chmod {mode} {path}`")
