"""Where a remote policy is: `tcp://[NAME@]HOST:PORT[#DIGEST]`, given wherever a checkpoint is."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from aloha_runtime.errors import ConfigError

SCHEME = "tcp://"
_FORM = re.compile(
    r"tcp://(?:(?P<name>[A-Za-z0-9][\w.-]*)@)?(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})"
    r"(?:#(?P<digest>[0-9a-f]{8,64}))?",
    re.ASCII,
)


def is_remote(checkpoint: str) -> bool:
    """Whether a checkpoint's name is the address of a policy server."""
    return checkpoint.startswith(SCHEME)


@dataclass(frozen=True)
class Address:
    """A policy server. `name`: in the allow-list, empty where it has one machine only. `digest`: of the checkpoint that
    must be served there (its beginning), empty: any."""

    host: str
    port: int
    name: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ConfigError for anything else."""
        found = _FORM.fullmatch(text)
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise ConfigError(
                f"{text!r} is no address of a policy server: write tcp://HOST:PORT or tcp://NAME@HOST:PORT"
            )
        return cls(found["host"], int(found["port"]), found["name"] or "", found["digest"] or "")

    @property
    def endpoint(self) -> str:
        """As ZeroMQ wants it, and as people read it."""
        return f"{SCHEME}{self.host}:{self.port}"

    def pinned(self, digest: str) -> str:
        """The address as text, with the checkpoint that must be served there."""
        return f"{SCHEME}{self.name}{'@' if self.name else ''}{self.host}:{self.port}#{digest}"


def bindable(text: str) -> str:
    """Endpoint to listen at; ConfigError unless it names an IP address of this machine and a port."""
    address = Address.parse(text)
    try:
        ipaddress.ip_address(address.host.strip("[]"))
    except ValueError:
        raise ConfigError(f"--bind {text}: give an IP address of this machine (`ip addr`), not a name") from None
    return address.endpoint
