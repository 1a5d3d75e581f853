"""Datasets on disk: LeRobotDataset v3.0 writer and reader, streamed statistics, video."""

from aloha_runtime.data.reader import Dataset, Episode
from aloha_runtime.data.writer import DatasetWriter

__all__ = ["Dataset", "DatasetWriter", "Episode"]
