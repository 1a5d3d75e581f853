"""What a robot PC and a policy server say to each other: msgpack, strictly typed, every length bounded.

    robot PC                          server
    Hello                    ->
                             <-       Card       the checkpoint without its weights, and a session
    Look(session, number)    ->
                             <-       Chunk(session, number), or Refusal with the reason

A session is drawn by the server for each connection, and its numbers only go up: what comes twice, late or from
elsewhere is dropped. No time stamp travels: the robot PC keeps the capture stamp of each number by its own clock, so
that nobody else can make an observation younger than it is.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from aloha_runtime.decoding import decoder

PROTOCOL = 1
MOST_ACTIONS = 1000
"""Of a chunk: twenty seconds."""
MOST_CAMERAS = 16
CARD_BYTES = 4 << 20
"""Of all files of a card: statistics, and pictures of 6 kB."""
SPARE_BYTES = 64 << 10
"""What a message is longer than its pixels, at most."""

Session = Annotated[bytes, Meta(min_length=16, max_length=16)]
Number = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Name = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=500)]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Anything that is not declared is refused."""


class Hello(_Strict, frozen=True, tag="hello"):
    """A robot PC. `rate_hz`: at which it carries out actions."""

    protocol: int
    rate_hz: Annotated[int, Meta(ge=1, le=1000)]


class Card(_Strict, frozen=True, tag="card"):
    """What is served. `digest`: SHA-256 of everything that shapes the actions; `files`: of the checkpoint, by name."""

    protocol: int
    session: Session
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    rate_hz: Annotated[int, Meta(ge=1, le=1000)]
    files: Annotated[dict[Name, Annotated[bytes, Meta(max_length=CARD_BYTES)]], Meta(max_length=128)]


class Picture(_Strict, frozen=True):
    """(height, width, 3) uint8 RGB, as it is or as a JPEG; the size is the policy's, never the sender's."""

    encoding: Literal["raw", "jpeg"]
    data: bytes


class Look(_Strict, frozen=True, tag="look"):
    """An observation: vectors as float32 bytes, pictures."""

    session: Session
    number: Number
    vectors: Annotated[dict[Name, Annotated[bytes, Meta(max_length=4096)]], Meta(max_length=8)]
    pictures: Annotated[dict[Name, Picture], Meta(max_length=MOST_CAMERAS)]


class Chunk(_Strict, frozen=True, tag="chunk"):
    """Actions (rows, 14) as float32 bytes."""

    session: Session
    number: Number
    inference_ns: Annotated[int, Meta(ge=0, le=2**62)]
    rows: Annotated[int, Meta(ge=1, le=MOST_ACTIONS)]
    actions: Annotated[bytes, Meta(max_length=MOST_ACTIONS * 14 * 4)]


class Refusal(_Strict, frozen=True, tag="refusal"):
    """Why there is no chunk. `again`: say hello first."""

    number: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    reason: Text
    again: bool = False


encode = msgspec.msgpack.encode
from_robot = decoder(Hello | Look)
"""Raises msgspec.DecodeError (or its ValidationError) for anything else."""
from_server = decoder(Card | Chunk | Refusal)
