"""Which adapter belongs to which arm: whatever vanishes when a person pulls its plug."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aloha_runtime.commands import usb
from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.errors import HardwareError

ATTEMPTS = 3
BACK_S = 5.0
"""An adapter is there again within two seconds of being plugged in."""
POLL_S = 0.05


@dataclass(frozen=True)
class Adapter:
    """One serial adapter. `path`: its device now; `serial`: what its udev rule goes by, empty where it has none."""

    path: str
    serial: str


Adapters = Callable[[], Mapping[str, Adapter]]
"""All that are plugged in now, by a name that stays the same when one is plugged in again."""


def real_adapters() -> dict[str, Adapter]:
    """Those of this machine, by serial number."""
    found = {}
    for name, device in usb.adapters().items():
        found[device.serial or name] = Adapter(f"/dev/{name}", device.serial)
    return found


def emulated_adapters(run_dir: Path) -> dict[str, Adapter]:
    """Those of emulated chains: links in a folder."""
    return {path.name: Adapter(str(path), "") for path in sorted(run_dir.glob("tty*")) if path.is_symlink()}


def find_ports(names: list[str], adapters: Adapters, person: Person) -> dict[str, str]:
    """Name of the adapter of each arm. Raises HardwareError when it cannot be told."""
    there = adapters()
    if len(there) < len(names):
        raise HardwareError(
            f"{len(there)} serial adapters are plugged in ({', '.join(there) or 'none'}), {len(names)} are needed:"
            " plug in one U2D2 for each arm"
        )
    found: dict[str, str] = {}
    for name in names:
        given = person.known(f"ports.{name}")
        found[name] = _given(name, given, there) if given is not None else _by_plug(name, adapters, person)
        person.say(f"{name}: {found[name]}")
        twin = next((other for other in found if other != name and found[other] == found[name]), None)
        if twin is not None:
            raise HardwareError(f"{found[name]} was pulled for {twin} and for {name}: begin again with `aloha setup`")
    return found


def _given(name: str, wanted: str, there: Mapping[str, Adapter]) -> str:
    for key, adapter in there.items():
        if wanted in (key, adapter.path, Path(adapter.path).name):
            return key
    raise HardwareError(f"ports.{name}: there is no {wanted}; plugged in are: {', '.join(there)}")


def _by_plug(name: str, adapters: Adapters, person: Person) -> str:
    for _ in range(ATTEMPTS):
        before = set(adapters())
        person.does(f"unplug.{name}", f"Pull the USB plug of the adapter of {name}")
        gone = before - set(adapters())
        person.does(f"plug.{name}", f"Plug the adapter of {name} in again")
        if len(gone) == 1:
            key = gone.pop()
            _wait_for(key, adapters, name)
            return key
        person.say(f"{len(gone)} adapters vanished ({', '.join(sorted(gone)) or 'none'}): pull exactly one")
    raise HardwareError(f"the adapter of {name} could not be told; name it in a file: `ports.{name}: /dev/ttyUSB0`")


def _wait_for(key: str, adapters: Adapters, name: str) -> None:
    give_up = time.monotonic() + BACK_S
    while key not in adapters():
        if time.monotonic() > give_up:
            raise HardwareError(f"{key}, the adapter of {name}, does not come back: plug it in and begin again")
        time.sleep(POLL_S)
