"""Video of one camera: encoded in a thread while frames arrive, decoded by time stamp."""

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
from numpy.typing import NDArray

from aloha_runtime.data.statistics import FeatureStats, ImageHistogram
from aloha_runtime.errors import DatasetError

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Codec:
    """One way to encode: `name` in the dataset, `encoder` in FFmpeg, `gop` frames from one key frame to the next."""

    name: str
    encoder: str
    gop: int
    crf: int
    options: dict[str, str]


CODECS = {
    "h264": Codec("h264", "libx264", 10, 23, {"preset": "ultrafast", "tune": "zerolatency"}),
    "av1": Codec("av1", "libsvtav1", 2, 30, {"preset": "12"}),
}
"""h264 keeps up with four 640x480 cameras at 50 fps on two cores, AV1 (LeRobot's default) is smaller and does not. Key
frames lie close together because training reads frames in random order."""

QUEUE_FRAMES = 32
"""Frames that may wait for the encoder: 0.64 s at 50 fps, 30 MB at 640x480."""


def video_info(codec: Codec, height: int, width: int, fps: int) -> dict[str, Any]:
    """What `info.json` says about a video feature, in LeRobot's words."""
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": codec.name,
        "video.pix_fmt": "yuv420p",
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
        "video.g": codec.gop,
        "video.crf": codec.crf,
        "video.preset": codec.options["preset"],
        "is_depth_map": False,
    }


class VideoEncoder:
    """Encodes one episode of one camera into `path`, in a thread of its own, and summarises its pixels.

    `put` waits when the encoder is `QUEUE_FRAMES` behind. What fails in the thread is raised by the next call.
    """

    def __init__(self, path: Path, height: int, width: int, fps: int, codec: Codec) -> None:
        self.path = path
        self.histogram = ImageHistogram()
        self._size = (height, width)
        self._fps = fps
        self._codec = codec
        self._error: Exception | None = None
        self._queue: queue.Queue[Image | None] = queue.Queue(QUEUE_FRAMES)
        self._thread = threading.Thread(target=self._run, name=f"encode {path.stem}", daemon=True)
        self._thread.start()

    def put(self, image: Image) -> None:
        """Hand over one frame; the caller may reuse the array at once."""
        self._raise_error()
        self._queue.put(image.copy())

    def finish(self) -> FeatureStats:
        """Wait for the last frame, close the file, return the statistics of the images."""
        self._queue.put(None)
        self._thread.join()
        self._raise_error()
        return self.histogram.stats()

    def discard(self) -> None:
        """Stop and remove the file."""
        self._queue.put(None)
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise DatasetError(
                f"Encoding {self.path} as {self._codec.name} failed: {self._error}. Check the free space of that disk;"
                f" the episode being recorded is lost, earlier ones are safe."
            ) from self._error

    def _run(self) -> None:
        try:
            self._encode()
        except Exception as error:
            self._error = error
            while self._queue.get() is not None:  # keep `put` from waiting for ever; it raises on its next call
                pass

    def _encode(self) -> None:
        height, width = self._size
        with av.open(self.path, "w", format="mp4") as container:
            stream = container.add_stream(self._codec.encoder, rate=self._fps)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            period = context.time_base = Fraction(1, self._fps)
            context.gop_size = self._codec.gop
            context.options = {**self._codec.options, "crf": str(self._codec.crf)}
            context.thread_count = 1  # cameras already run in parallel, and one thread costs least per frame
            # What cv2.COLOR_RGB2YUV_I420 computes: BT.601, limited range.
            context.colorspace, context.color_range = av.video.reformatter.Colorspace.SMPTE170M, 1
            count = 0
            while (image := self._queue.get()) is not None:
                self.histogram.add(image)
                frame = av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
                frame.pts, frame.time_base = count, period
                container.mux(stream.encode(frame))
                count += 1
            container.mux(stream.encode(None))


class VideoReader:
    """Frames of one video file by time stamp (seconds). Reading forward continues decoding instead of seeking again."""

    SEEK_AHEAD_S = 0.5
    """A target further ahead than this is sought rather than decoded up to."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._half_period = 0.5 / fps
        try:
            self._container = av.open(path)
            self._stream = self._container.streams.video[0]
        except FileNotFoundError:
            raise DatasetError(f"Video file {path} is missing. Restore it from a copy of the dataset.") from None
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(f"{path} is not a readable video ({error}). Restore it from a copy.") from None
        # Without threads: random frames come a fifth faster, and a forked worker leaves none behind.
        self._stream.thread_type, self._stream.codec_context.thread_count = "NONE", 1
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next_s = float("-inf")

    def close(self) -> None:
        self._container.close()

    def frame(self, time_s: float) -> Image:
        """The frame shown at `time_s`, (H, W, 3) uint8 RGB; raises DatasetError when the video does not hold it."""
        if not self._next_s - self._half_period <= time_s <= self._next_s + self.SEEK_AHEAD_S:
            self._seek(time_s)
        try:
            for frame in self._frames:
                self._next_s = frame.time + 2 * self._half_period
                if frame.time >= time_s - self._half_period:
                    if frame.time > time_s + self._half_period:
                        break
                    image: Image = frame.to_ndarray(format="rgb24")
                    return image
        except av.FFmpegError as error:
            raise DatasetError(f"{self.path}: no frame at {time_s:.3f} s ({error}). Restore it from a copy.") from None
        self._next_s = float("-inf")
        raise DatasetError(f"{self.path} holds no frame at {time_s:.3f} s. Restore it from a copy of the dataset.")

    def _seek(self, time_s: float) -> None:
        offset = int((time_s + self._half_period) / self._stream.time_base)
        self._container.seek(max(offset, 0), stream=self._stream)
        self._frames = self._container.decode(self._stream)
