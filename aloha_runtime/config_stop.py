"""The physical STOP of a rig file: a key of an input device, or a control line of a serial adapter."""

import difflib
from typing import Literal

from pydantic import Field, field_validator, model_validator

from aloha_runtime.config_strict import Strict
from aloha_runtime.config_strings import DevicePath, UsbSerial
from aloha_runtime.key_names import HIGHEST_CODE, KEY_CODES, key_name

ANY_KEY = "any"
Line = Literal["cts", "dsr", "dcd", "ri"]


class StopInputConfig(Strict):
    """`device` with `key`, or `port` with `line` and `closed_means`. `serial`: the USB serial number of either, from
    which `aloha install` writes its udev rule."""

    device: DevicePath | None = Field(None, description="such as /dev/input/by-id/usb-PCsensor_FootSwitch-event-kbd")
    key: int | Literal["any"] | None = Field(None, description="KEY_SPACE, a number, or any (the default)")
    port: DevicePath | None = Field(None, description="such as /dev/serial/by-id/usb-FTDI_FT232R_A50285BI-if00")
    line: Line | None = Field(None, description="which line the contact connects to DTR; cts by default")
    closed_means: Literal["run", "stop"] | None = Field(
        None, description="run (the default): a normally closed contact, so that a broken cable is STOP as well"
    )
    serial: UsbSerial | None = None

    @field_validator("key", mode="before")
    @classmethod
    def _is_a_key(cls, key: object) -> object:
        """A key as it is kept: a number, or `any`."""
        if key is None or key == ANY_KEY:
            return key
        if isinstance(key, int) and not isinstance(key, bool):
            if not 0 < key <= HIGHEST_CODE:
                raise ValueError(f"a key's number is 1 to {HIGHEST_CODE}")
            return key
        name = str(key).upper()
        if isinstance(key, str) and name in KEY_CODES:
            return KEY_CODES[name]
        near = difflib.get_close_matches(name, KEY_CODES, 1, 0.4)
        raise ValueError(
            f"unknown key; write a name such as {near[0] if near else 'KEY_SPACE'}, the number that `evtest` prints, "
            "or any"
        )

    @model_validator(mode="after")
    def _is_one_kind(self) -> "StopInputConfig":
        if (self.device is None) == (self.port is None):
            raise ValueError("give either `device` (a key or pedal) or `port` (a line of a serial adapter)")
        if self.device is not None and (self.line or self.closed_means):
            raise ValueError("`line` and `closed_means` belong to a `port`; a `device` has a `key`")
        if self.port is not None and self.key is not None:
            raise ValueError("`key` belongs to a `device`; a `port` has a `line`")
        return self

    @property
    def path(self) -> str:
        """Of the device or port."""
        return self.device or self.port or ""

    @property
    def code(self) -> int | None:
        """The key that is STOP; None: every key of the device."""
        return self.key if isinstance(self.key, int) else None

    @property
    def contact(self) -> Line:
        """The line that is read."""
        return self.line or "cts"

    @property
    def closed_runs(self) -> bool:
        """A closed contact lets the arms move, an open one is STOP; else the other way round."""
        return self.closed_means != "stop"

    @property
    def name(self) -> str:
        """As messages name it."""
        if self.device is None:
            return f"{self.contact.upper()} of {self.path}"
        return f"{'any key' if self.code is None else key_name(self.code)} of {self.path}"
