"""Video of one camera and episode: encoded in a thread while frames arrive, readable up to the last moment of its life.

The file is an MP4 in fragments, one from each key frame to the next, that closing turns into an ordinary MP4 in place
(FFmpeg's "hybrid" MP4). So a kill of the process costs the frames since the last key frame and nothing more.
"""

import functools
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from aloha_runtime.data.statistics import ImageHistogram
from aloha_runtime.data.video import Image
from aloha_runtime.errors import DatasetError


@dataclass(frozen=True)
class Codec:
    """One way to encode: `name` and `pix_fmt` in the dataset, `encoder` in FFmpeg, which is fed `feed` pixels, `gop`
    frames from one key frame to the next."""

    name: str
    encoder: str
    gop: int
    crf: int
    options: dict[str, str]
    pix_fmt: str = "yuv420p"
    feed: str = "yuv420p"

    @property
    def preset(self) -> str:
        return self.options.get("preset", "")


CODECS = {
    "h264": Codec("h264", "libx264", 10, 23, {"preset": "ultrafast", "tune": "zerolatency"}),
    "av1": Codec("av1", "libsvtav1", 2, 30, {"preset": "12", "svtav1-params": "pred-struct=1:lookahead=0"}),
    "lossless": Codec("h264", "libx264rgb", 10, 0, {"preset": "ultrafast", "tune": "zerolatency"}, "gbrp", "rgb24"),
}
"""By the name that `--codec` takes. h264 keeps up with four 640x480 cameras at 50 fps on two cores; AV1 (LeRobot's
default) is smaller and does not; lossless keeps every bit, at about 30 times the size. Key frames lie close together
because training reads frames in random order. None of them holds frames back, so a killed process loses few."""

HARDWARE = {"h264": (Codec("h264", "h264_nvenc", 10, 23, {"preset": "p1", "tune": "ull", "rc": "constqp", "bf": "0"}),)}
"""Encoders that are taken instead where the machine has them, by name of the codec."""
_QUALITY = {"h264_nvenc": "qp"}
"""What the encoder calls its quality, where that is not crf."""

os.environ.setdefault("SVT_LOG", "1")  # errors only; else SVT-AV1 prints its settings for every video

QUEUE_FRAMES = 32
"""Frames that may wait for the encoder: 0.64 s at 50 fps, 30 MB at 640x480."""
HYBRID_MP4 = {"movflags": "hybrid_fragmented", "flush_packets": "1"}


def video_info(codec: Codec, height: int, width: int, fps: float) -> dict[str, Any]:
    """What `info.json` says about a video feature, in LeRobot's words."""
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": codec.name,
        "video.pix_fmt": codec.pix_fmt,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "video.g": codec.gop,
        "video.crf": codec.crf,
        "video.preset": codec.preset,
        "is_depth_map": False,
    }


@functools.cache
def on_this_machine(name: str, height: int, width: int) -> Codec:
    """The codec of `CODECS`, with a hardware encoder where there is one that works at this size."""
    for candidate in HARDWARE.get(name, ()):
        try:
            context = av.VideoCodecContext.create(candidate.encoder, "w")
            context.width, context.height, context.pix_fmt = width, height, candidate.feed
            context.time_base = Fraction(1, 50)
            context.encode(_frame(np.zeros((height, width, 3), np.uint8), candidate))
        except (av.FFmpegError, ValueError):
            continue
        return candidate
    return CODECS[name]


def _frame(image: Image, codec: Codec) -> av.VideoFrame:
    if codec.feed == "yuv420p":  # OpenCV converts four times as fast as FFmpeg's scaler
        return av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), format=codec.feed)
    return av.VideoFrame.from_ndarray(image, format=codec.feed)


class VideoEncoder:
    """Encodes one episode of one camera into `path`, in a thread of its own, and summarises its pixels.

    What fails in the thread is raised by the next call.
    """

    def __init__(self, path: Path, height: int, width: int, rate: Fraction | int, codec: Codec) -> None:
        self.path = path
        self.histogram = ImageHistogram()
        self._size = (height, width)
        self._rate = Fraction(rate)
        self._codec = codec
        self._error: BaseException | None = None
        self._buffers: queue.SimpleQueue[Image | None] = queue.SimpleQueue()
        """Room for frames that may still come; None is a buffer that nobody has needed so far."""
        for _ in range(QUEUE_FRAMES):
            self._buffers.put(None)
        self._waiting: queue.SimpleQueue[Image | None] = queue.SimpleQueue()
        """Frames to encode; `_REPEAT` stands for the frame before it, None for the end."""
        self._thread = threading.Thread(target=self._run, name=f"encode {path.stem}", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether `put` would wait: the encoder is `QUEUE_FRAMES` behind."""
        return self._buffers.empty()

    def put(self, image: Image) -> None:
        """Hand over one frame; waits while `full`. The caller may reuse the array at once."""
        self._raise_error()
        buffer = self._buffers.get()
        buffer = np.empty_like(image) if buffer is None else buffer
        np.copyto(buffer, image)
        self._waiting.put(buffer)

    def repeat(self) -> None:
        """The frame before once more, for one that did not come; never waits, costs no memory."""
        self._raise_error()
        self._waiting.put(_REPEAT)

    def finish(self) -> None:
        """Wait for the last frame and close the file."""
        self._waiting.put(None)
        self._thread.join()
        self._raise_error()

    def discard(self) -> None:
        """Stop and remove the file."""
        self.abandon()
        self.path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Stop; the file stays as it is."""
        self._waiting.put(None)
        self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise DatasetError(
                f"Encoding {self.path} as {self._codec.name} failed: {self._error}. Check the free space of that disk;"
                f" what was encoded so far comes back when the dataset is opened again, earlier episodes are safe."
            ) from self._error

    def _run(self) -> None:
        images = self._images()
        try:
            self._encode(images)
        except Exception as error:
            self._error = _first(error)
            for image in images:  # so that `put` does not wait for ever: it raises on its next call
                if image is not _REPEAT:
                    self._buffers.put(None)

    def _images(self) -> Iterator[Image]:
        """What was handed over, until the end."""
        while (image := self._waiting.get()) is not None:
            yield image

    def _encode(self, images: Iterator[Image]) -> None:
        height, width = self._size
        # Through a file of Python's: FFmpeg's own, as PyAV calls it, holds the interpreter while the header is written,
        # so that a disk that stalls then would stop every thread.
        with (
            self.path.open("w+b", buffering=0) as file,
            av.open(file, "w", format="mp4", options=HYBRID_MP4) as container,
        ):
            stream = container.add_stream(self._codec.encoder, rate=self._rate)
            stream.width, stream.height, stream.pix_fmt = width, height, self._codec.feed
            context = stream.codec_context
            period = context.time_base = 1 / self._rate
            context.gop_size = self._codec.gop
            context.options = {**self._codec.options, _QUALITY.get(self._codec.encoder, "crf"): str(self._codec.crf)}
            context.thread_count = 1  # cameras already run in parallel, and one thread costs least per frame
            if self._codec.feed == "yuv420p":  # what cv2.COLOR_RGB2YUV_I420 computes: BT.601, limited range
                context.colorspace, context.color_range = av.video.reformatter.Colorspace.SMPTE170M, 1
            frame: av.VideoFrame | None = None
            for count, image in enumerate(images):
                if image is not _REPEAT:
                    frame = _frame(image, self._codec)
                    self.histogram.add(image)
                    self._buffers.put(image)
                else:
                    self.histogram.repeat()
                assert frame is not None, "a first frame cannot be repeated; the writer sees to it"
                frame.pts, frame.time_base = count, period
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def _first(error: BaseException) -> BaseException:
    """What went wrong first: where a disk is full, closing the film fails once more, and gives no reason."""
    while error.__context__ is not None:
        error = error.__context__
    return error


_REPEAT: Image = np.empty((0, 0, 3), np.uint8)
