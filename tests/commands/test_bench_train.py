"""The rows of `aloha bench train`, on a dataset small enough for a test."""

from pathlib import Path

import pytest

from aloha_runtime.commands import bench_train
from aloha_runtime.data import Dataset


def test_loader_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"EPISODES": 2, "LENGTH": 8, "HEIGHT": 48, "WIDTH": 64, "DIRECT_SAMPLES": 16, "CACHED_SAMPLES": 64}
    for name, value in small.items():
        monkeypatch.setattr(bench_train, name, value)
    monkeypatch.setattr(bench_train, "INTEROP", tmp_path / "absent")
    (row,) = bench_train.loader_rows(tmp_path)
    assert row.unit == "samples/s"
    assert row.value > 0
    assert row.peer == row.goal > 0
    assert row.met == (row.value >= row.peer)
    assert not list(tmp_path.iterdir())  # 1.5 GB at full size


def test_the_dataset_is_video_of_something_that_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train, "EPISODES", 1)
    monkeypatch.setattr(bench_train, "LENGTH", 3)
    bench_train.write_dataset(tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    assert dataset.cameras == dict.fromkeys(bench_train.CAMERAS, (480, 640))
    first, later = (dataset.frame("cam_low", index).astype(float) for index in (0, 2))
    assert first.std() > 20
    assert abs(first - later).mean() > 0.5
