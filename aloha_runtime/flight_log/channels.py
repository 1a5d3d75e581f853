"""What a log holds: one MCAP channel a topic, JSON messages beside their JSON schema, so that any viewer reads them.

Messages are those of `messages.py` as they were sent, without pixels. Two kinds are the recorder's own, in schemas that
Foxglove shows by itself (https://docs.foxglove.dev/docs/visualization/message-schemas): lines of what happened
(`foxglove.Log`) and thumbnails (`foxglove.CompressedImage`).
"""

import base64
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from mcap.records import Channel, Schema

from aloha_runtime.messages import FrameInfo, Message, Topic

Level = Literal["info", "warning", "error"]
LEVELS: dict[Level, int] = {"info": 2, "warning": 3, "error": 4}
"""Numbers of `foxglove.Log`."""
LOG = "/log"
"""Channel of the recorder's own lines."""
NS_PER_S = 1_000_000_000


class Time(msgspec.Struct):
    """A `time` of Foxglove's schemas."""

    sec: int
    nsec: int


class LogLine(msgspec.Struct):
    """`foxglove.Log`; `name` is the process that the line is about."""

    timestamp: Time
    level: int
    message: str
    name: str
    file: str = ""
    line: int = 0


class Thumbnail(msgspec.Struct):
    """`foxglove.CompressedImage`; `data` is a JPEG in base64."""

    timestamp: Time
    frame_id: str
    data: str
    format: str = "jpeg"


class Channels:
    """The channels of one rig. `ids`: number by channel name; names are topics with slashes (`/camera/cam_high`)."""

    def __init__(self, topics: Iterable[Topic], cameras: Iterable[str]) -> None:
        self.schemas: list[Schema] = []
        self.channels: list[Channel] = []
        self.ids: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        for topic in topics:
            kept = {"rate_hz": f"{topic.rate_hz:g}", "max_age_ms": f"{topic.max_age_ms:g}", "from": topic.publisher}
            self._add(name_of(topic), topic.message.__name__, topic.message, kept)
        self._add(LOG, "foxglove.Log", LogLine, {"from": "flight"})
        for camera in cameras:
            self._add(thumbnail_name(camera), "foxglove.CompressedImage", Thumbnail, {"from": "flight"})

    def _add(self, name: str, schema: str, kind: type[msgspec.Struct], kept: dict[str, str]) -> None:
        if schema not in self._numbers:
            self._numbers[schema] = len(self.schemas) + 1
            data = msgspec.json.encode(json_schema(kind))
            self.schemas.append(Schema(self._numbers[schema], data, "jsonschema", schema))
        self.ids[name] = len(self.channels) + 1
        self.channels.append(Channel(self.ids[name], name, "json", kept, self._numbers[schema]))


def name_of(topic: Topic) -> str:
    """A dot would be taken for a field in Foxglove's paths (`/followers.position[3]`)."""
    return f"/{topic.name.replace('.', '/')}"


def thumbnail_name(camera: str) -> str:
    return f"/thumbnail/{camera}"


def json_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """One schema without references, which not every viewer follows. A number may be null: JSON has no NaN, and a NaN
    that was sent is what a log must not hide."""
    found = msgspec.json.schema(kind)
    return dict(_plain(found["$defs"][kind.__name__], found["$defs"]))


def _plain(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        named = definitions[node["$ref"].rpartition("/")[2]]
        node = {**named, **{key: value for key, value in node.items() if key != "$ref"}}
    if node.get("type") == "number":
        return {**node, "type": ["number", "null"]}
    return {key: _plain(value, definitions) for key, value in node.items() if key != "description"}


def encoded(message: Message) -> bytes:
    """A message as JSON; pixels that travel in the message itself are left out."""
    if isinstance(message, FrameInfo):
        message.pixels = b""
    return msgspec.json.encode(message)


def line(stamp_ns: int, level: Level, process: str, text: str) -> bytes:
    """A line of the recorder's own; `stamp_ns` is wall time."""
    return msgspec.json.encode(LogLine(_time(stamp_ns), LEVELS[level], text, process))


def thumbnail(stamp_ns: int, camera: str, jpeg: bytes) -> bytes:
    """A small picture; `stamp_ns` is wall time."""
    return msgspec.json.encode(Thumbnail(_time(stamp_ns), camera, base64.b64encode(jpeg).decode()))


def _time(stamp_ns: int) -> Time:
    return Time(*divmod(stamp_ns, NS_PER_S))
