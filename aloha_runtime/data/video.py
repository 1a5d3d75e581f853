"""Video of one camera: decoded by time stamp."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from aloha_runtime.data.damaged import reads_files
from aloha_runtime.errors import DatasetError

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""


class VideoReader:
    """Frames of one video file by time stamp (seconds). Reading forward continues decoding instead of seeking again."""

    SEEK_AHEAD_S = 0.5
    """A target further ahead than this is sought rather than decoded up to."""

    @reads_files
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

    @reads_files
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
