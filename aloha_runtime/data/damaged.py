"""Readers of datasets: whatever is wrong inside is one DatasetError that names the file or the dataset."""

import av
import cv2
import pyarrow as pa

from aloha_runtime.damaged import reads
from aloha_runtime.errors import DatasetError

REMEDY = "Restore it from a copy, or leave it out."
DECODERS = (av.FFmpegError, pa.ArrowException, cv2.error)

reads_files = reads(DatasetError, REMEDY, (*DECODERS, OSError))
"""Of functions that only read."""
reads_and_writes = reads(DatasetError, REMEDY, DECODERS)
"""Of functions that write as well: a full disk is no damage."""
