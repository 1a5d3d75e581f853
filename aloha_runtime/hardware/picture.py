"""The one place where a camera's picture is turned, cropped and resized: at its source, so that the recorder, the
policy and every check of the operator see the same."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.config_cameras import PictureStage
from aloha_runtime.hardware.base import Camera, CameraFrame

Image = NDArray[np.uint8]


def staged(image: Image, stage: PictureStage) -> Image:
    """A (H, W, 3) uint8 picture after its stage: rotated, flipped, cropped, resized, in this order.

    Shrinking averages the pixels that fall together (OpenCV's INTER_AREA), so that fine patterns do not turn into
    others; enlarging is bilinear.
    """
    if stage.rotate:
        image = np.rot90(image, -stage.rotate // 90)
    if stage.flip != "none":
        image = image[:, ::-1] if stage.flip == "horizontal" else image[::-1]
    if stage.crop is not None:
        left, top, width, height = stage.crop
        image = image[top : top + height, left : left + width]
    image = np.ascontiguousarray(image)
    if stage.resize is None or stage.resize == (image.shape[1], image.shape[0]):
        return image
    import cv2  # 40 MB that only this needs

    smaller = stage.resize[0] < image.shape[1] or stage.resize[1] < image.shape[0]
    resized = cv2.resize(image, stage.resize, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


class StagedCamera:
    """A camera whose pictures go through a stage; everything else is the camera's own."""

    def __init__(self, camera: Camera, stage: PictureStage) -> None:
        self.name = camera.name
        self._camera, self._stage = camera, stage

    def connect(self) -> None:
        self._camera.connect()

    def read(self, timeout_s: float) -> CameraFrame | None:
        frame = self._camera.read(timeout_s)
        return None if frame is None else replace(frame, image=staged(frame.image, self._stage))

    @property
    def identical_frames(self) -> int:
        return self._camera.identical_frames

    @property
    def controls(self) -> dict[str, float]:
        return self._camera.controls

    def disconnect(self) -> None:
        self._camera.disconnect()


def with_stage(camera: Camera, stage: PictureStage) -> Camera:
    """The camera as its rig file wants its pictures."""
    return StagedCamera(camera, stage) if stage.changes else camera
