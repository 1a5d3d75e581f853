"""Small pictures of a camera, enough to see where the arms and objects were."""

import numpy as np

from aloha_runtime.ring_memory import Image

WIDTH = 192
"""Pixels at least: some 4 kB a picture."""
QUALITY = 60
"""Percent of JPEG."""


def shrink(image: Image) -> Image:
    """Every n-th pixel of a (height, width, 3) picture."""
    step = max(1, image.shape[1] // WIDTH)
    return np.ascontiguousarray(image[::step, ::step])


def jpeg(image: Image) -> bytes:
    """A uint8 RGB picture as JPEG."""
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done, "OpenCV has no JPEG encoder"
    return bytes(data)
