"""What a rig file says of a camera beyond where it is: its controls, and what becomes of its pictures."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from aloha_runtime.config_strict import Strict

Pixels = Annotated[int, Field(ge=0, le=4096)]
Size = Annotated[int, Field(ge=16, le=4096)]


class CameraControls(Strict):
    """Controls of the camera itself. What is left out is not touched, except for automatics: exposure, focus and white
    balance are automatic then. One that the camera does not have, or does not take, is named at the start."""

    exposure: int | None = Field(None, description="Exposure in the camera's own unit; None leaves auto-exposure on")
    focus: int | None = Field(None, description="Fixed focus (V4L2 focus_absolute); None leaves auto-focus on")
    gain: int | None = Field(None, description="In the camera's own unit; needs a fixed exposure")
    white_balance_k: int | None = Field(None, ge=1000, le=12000, description="Colour temperature (kelvin)")
    power_line_hz: Literal[0, 50, 60] | None = Field(None, description="Of the lamps, against flicker; 0: no filter")
    dynamic_framerate: bool | None = Field(None, description="Automatic exposure may lower the rate in dim light")

    @model_validator(mode="after")
    def _gain_is_left_alone(self) -> "CameraControls":
        if self.gain is not None and self.exposure is None:
            raise ValueError("`gain` needs a fixed `exposure`: automatic exposure changes the gain all the time")
        return self

    def chosen(self) -> dict[str, Any]:
        """The controls that the rig file states, by key."""
        named = {key: getattr(self, key) for key in CameraControls.model_fields}
        return {key: value for key, value in named.items() if value is not None}


class PictureStage(Strict):
    """What is done to every picture of a camera before anybody sees it, in this order. Recorder, policy and operator
    all get the result (`hardware/picture.py`), and it is stored with datasets and checkpoints."""

    rotate: Literal[0, 90, 180, 270] = Field(0, description="degrees, clockwise")
    flip: Literal["none", "horizontal", "vertical"] = Field("none", description="horizontal: left becomes right")
    crop: tuple[Pixels, Pixels, Size, Size] | None = Field(None, description="left, top, width, height (pixels)")
    resize: tuple[Size, Size] | None = Field(None, description="width, height (pixels)")

    @property
    def changes(self) -> bool:
        """Whether anything is done at all."""
        return bool(self.rotate or self.flip != "none" or self.crop or self.resize)

    def result(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what becomes of a picture of this size; ValueError where the crop reaches beyond it."""
        if self.rotate in (90, 270):
            height, width = width, height
        if self.crop is not None:
            left, top, across, down = self.crop
            if left + across > width or top + down > height:
                raise ValueError(
                    f"crop [{left}, {top}, {across}, {down}] (left, top, width, height) reaches beyond the picture of"
                    f" {width}x{height} that it is taken from"
                )
            height, width = down, across
        return (self.resize[1], self.resize[0]) if self.resize else (height, width)
