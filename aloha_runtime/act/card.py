"""The card of a checkpoint: its directory without the weights. A policy server sends it, so that a robot PC can look at
a remote policy as closely as at one of its own before it moves anything.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from aloha_runtime import config
from aloha_runtime.act.config import ACTConfig
from aloha_runtime.act.header import CONFIG, load_config
from aloha_runtime.errors import CheckpointError
from aloha_runtime.remote.address import Address, is_remote
from aloha_runtime.remote.keys import Keys, default_keys_dir
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.remote.wire import CARD_BYTES, Card
from aloha_runtime.robot import CONTROL_HZ

PATIENCE_S = 15.0
"""A server that has just been started loads for longer, but then does not listen yet."""
NEEDED = (CONFIG, "policy_preprocessor.json")
KNOWN = re.compile(
    r"(config|aloha|provenance|policy_(pre|post)processor)\.json"
    r"|policy_(pre|post)processor_step_\d+_\w+\.safetensors|training_frames/[\w-]+\.jpg",
    re.ASCII,
)
"""Names that a card may hold: no other leads to a file."""


def unpack(files: Mapping[str, bytes], directory: Path) -> None:
    """Write a card into an empty directory; CheckpointError for one that holds anything else than a card does."""
    foreign = sorted(name for name in files if not KNOWN.fullmatch(name))
    missing = [name for name in NEEDED if name not in files]
    if foreign or missing or sum(map(len, files.values())) > CARD_BYTES:
        what = f"holds {foreign[0][:80]!r}" if foreign else f"lacks {missing[0]}" if missing else "is too large"
        raise CheckpointError(f"what the policy server says of its checkpoint {what}: install the same release there")
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def pinned(checkpoint_name: str) -> str:
    """The name of a checkpoint; of a remote one, after asking its server, the address with what is served there now.
    Raises TransportError when nobody answers, ConfigError without keys."""
    if not is_remote(checkpoint_name):
        return checkpoint_name
    address = Address.parse(checkpoint_name)
    link = PolicyLink(address, Keys(default_keys_dir()), CONTROL_HZ)
    try:
        card = link.open(PATIENCE_S)
    finally:
        link.close()
    _keep(card.digest, card.files)
    return address.pinned(card.digest)


def directory_of(checkpoint_name: str) -> Path:
    """Directory of a checkpoint by its name: a shipped one, a path, or a policy server's address, whose card is asked
    for unless the address says which one it is and it is here."""
    if not is_remote(checkpoint_name):
        return config.policy_path(checkpoint_name)
    here = _home() / Address.parse(checkpoint_name).digest
    if here == _home() or not (here / CONFIG).exists():
        here = _home() / Address.parse(pinned(checkpoint_name)).digest
    return here


def is_card(directory: Path) -> bool:
    """Whether a directory is a card, which has no weights."""
    return directory.parent == _home()


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aloha" / "cards"


def _keep(digest: str, files: Mapping[str, bytes]) -> None:
    """The card appears whole, in place of the one that was there."""
    home = _home()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=home))
    try:
        unpack(files, aside)
        shutil.rmtree(home / digest, ignore_errors=True)
        aside.rename(home / digest)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remote_config(card: Card) -> tuple[ACTConfig, Path]:
    """Configuration of a checkpoint by its card, and a name for it in messages. Leaves no file behind."""
    with tempfile.TemporaryDirectory(prefix="aloha-card-") as folder:
        unpack(card.files, Path(folder))
        return load_config(Path(folder)), Path(card.digest)
