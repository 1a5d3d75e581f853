"""The strings of a rig file, one type for each kind: what reaches a path, a unit, a rule of udev, a shell or a log.

No type takes a line break or another control character, and none takes what would end a word where the string is used.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

STEP = r"[A-Za-z0-9_.:@,+=#~-]+"
"""One name in a path of a device."""
URL = r"(?:https?|rtsps?|rtmp|udp|tcp)://[A-Za-z0-9_.~:/?#@&%=,;+\[\]-]+"


@dataclass(frozen=True)
class Text:
    """A string that is all `pattern` and has no step `..`; a mistake is told with `advice`."""

    pattern: str
    advice: str

    def check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text) or ".." in text.split("/"):
            raise ValueError(self.advice)
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{self.pattern}$"}


RigName = Annotated[
    str, Text(r"\w[\w .+()-]{0,63}", "a name is letters, digits, spaces, and . + ( ) - _, at most 64 of them")
]
CameraName = Annotated[
    str, Text(r"[a-z][a-z0-9_]*", "a camera's name is small letters, digits and _, and begins with a letter")
]
UsbSerial = Annotated[str, Text(r"[A-Za-z0-9_./:-]+", "a serial number is letters, digits, and . / : - _")]
"""Nothing that would mean something else in a udev rule."""
ModelName = Annotated[
    str, Text(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}", "a servo model is letters, digits and -, such as XM430-W350")
]
DevicePath = Annotated[
    str, Text(rf"(?:/{STEP})+", "give the whole path of the device, which begins with /, such as /dev/input/by-id/...")
]
ArmPort = Annotated[
    str,
    Text(
        rf"(?:/{STEP})+|[A-Za-z0-9][A-Za-z0-9_-]*",
        "give the whole path of the adapter, such as /dev/ttyDXL_follower_left, or on a simulated rig a name such as"
        " ttyDXL_follower_left",
    ),
]
SIMULATED_PORT = re.compile(r"tty[A-Za-z0-9_-]+")
"""Of a simulated rig: a name in the run directory that nothing else there has."""
VideoSource = Annotated[
    str,
    Text(
        rf"/?{STEP}(?:/{STEP})*|{URL}",
        "give the path of a device or of a video file, a number, or a URL such as rtsp://...",
    ),
]
Folder = Annotated[
    str, Text(r"[\w ./:@,+=~-]+", "give the path of a folder: letters, digits, spaces, and . : @ , + = ~ - _")
]
PolicyCamera = Annotated[
    str, Text(r"[\w./: -]{1,128}", "a policy's camera name is letters, digits, spaces, and . / : - _")
]
