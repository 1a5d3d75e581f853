"""`aloha keys`: this machine's key, and the machines that it lets in."""

from pathlib import Path

from rich.console import Console

from aloha_runtime.remote.keys import PRIVATE, Keys, default_keys_dir


def new(directory: Path | None) -> None:
    """Make this machine's key."""
    keys = Keys(directory or default_keys_dir())
    public = keys.create()
    say = Console(highlight=False, soft_wrap=True).print
    say(f"private key: {keys.directory / PRIVATE} (leave it here)")
    say(f"public key, for the other machine: aloha keys allow {public} NAME_OF_THIS_MACHINE")


def show(directory: Path | None) -> None:
    """The public key, and who is allowed."""
    keys = Keys(directory or default_keys_dir())
    say = Console(highlight=False, soft_wrap=True).print
    say(f"public key of this machine: {keys.public()}")
    for peer in keys.allowed() if keys.has_allowed() else ():
        say(f"allowed: {peer.key} {peer.name}")


def allow(key: str, name: str, directory: Path | None) -> None:
    """Let a machine in, or trust a server."""
    keys = Keys(directory or default_keys_dir())
    keys.allow(key, name)
    Console(highlight=False, soft_wrap=True).print(f"{name} is allowed; the list is {keys.directory}")
