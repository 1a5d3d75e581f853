"""Statistics against numpy, and against what LeRobot computed for its own sample."""

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aloha_runtime.data import Dataset, statistics
from aloha_runtime.data.statistics import ImageHistogram

values = st.floats(-1e3, 1e3, width=32)
vectors = st.integers(1, 40).flatmap(lambda length: arrays(np.float32, (length, 3), elements=values))


@settings(deadline=None)
@given(vectors, vectors)
def test_merging_equals_computing_together(first, second):
    both = np.concatenate([first, second]).astype(np.float64)
    merged = statistics.merge(statistics.vector_stats(first), statistics.vector_stats(second))
    assert np.array_equal(merged["min"], both.min(axis=0))
    assert np.array_equal(merged["max"], both.max(axis=0))
    assert np.allclose(merged["mean"], both.mean(axis=0), rtol=1e-9, atol=1e-9)
    assert np.allclose(merged["std"], both.std(axis=0), rtol=1e-6, atol=1e-6)
    assert merged["count"] == [len(both)]
    for name in statistics.QUANTILES:
        parts = [statistics.vector_stats(part)[name] * len(part) for part in (first, second)]
        assert np.allclose(merged[name], sum(parts) / len(both))


@settings(deadline=None, max_examples=30)
@given(arrays(np.uint8, (11, 8, 6, 3)))
def test_image_statistics_equal_numpy(frames):
    histogram = ImageHistogram()
    for frame in frames:
        histogram.add(frame)
    stats = histogram.stats()
    pixels = frames[:: ImageHistogram.FRAME_STRIDE].reshape(-1, 3) / 255
    assert stats["count"] == [3]
    assert np.array_equal(stats["min"].ravel(), pixels.min(axis=0))
    assert np.array_equal(stats["max"].ravel(), pixels.max(axis=0))
    assert np.allclose(stats["mean"].ravel(), pixels.mean(axis=0))
    assert np.allclose(stats["std"].ravel(), pixels.std(axis=0))
    for name, level in statistics.QUANTILES.items():
        assert np.array_equal(stats[name].ravel(), np.quantile(pixels, level, axis=0, method="inverted_cdf"))
        assert stats[name].shape == (3, 1, 1)


def test_large_images_are_thinned():
    image = np.zeros((480, 640, 3), np.uint8)
    image[::4, ::4] = 255
    histogram = ImageHistogram()
    histogram.add(image)
    assert (histogram.stats()["min"] == 1).all(), "only every fourth pixel of every fourth row counts"


def test_part_of_a_video_has_statistics_of_its_own():
    histogram = ImageHistogram()
    for value in range(30):
        histogram.add(np.full((4, 4, 3), value, np.uint8))
    part = histogram.stats(first=10, frames=11)
    assert part["count"] == [3]
    assert np.allclose(part["mean"], 15 / 255)
    assert np.allclose(histogram.stats(first=11, frames=2)["mean"], 15 / 255), "no look inside: the next one"
    assert np.allclose(histogram.stats(first=28, frames=2)["mean"], 25 / 255), "none behind it either: the last one"


@pytest.mark.parametrize("episode", [0, 1, 2])
def test_vector_statistics_agree_with_lerobot(shared_sample, episode):
    """LeRobot takes quantiles from a histogram of 5000 bins, so those agree within one bin."""
    raw = np.load(shared_sample / "raw.npz")
    row = pq.read_table(shared_sample / "dataset/meta/episodes/chunk-000/file-000.parquet").to_pylist()[episode]
    for key in ("observation.state", "observation.velocity", "observation.effort", "action"):
        ours = statistics.vector_stats(raw[f"{episode}/{key}"])
        span = ours["max"] - ours["min"]
        for name in statistics.NAMES:
            theirs = np.array(row[f"stats/{key}/{name}"])
            allowed = span / 5000 + 1e-9 if name in statistics.QUANTILES else 1e-6
            assert np.all(np.abs(ours[name] - theirs) <= allowed), (key, name)


def test_merging_lerobots_episodes_gives_lerobots_dataset_statistics(shared_sample):
    rows = pq.read_table(shared_sample / "dataset/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    merged = {}
    for row in rows:
        nested = {}
        for column, value in row.items():
            if column.startswith("stats/"):
                key, name = column.removeprefix("stats/").rsplit("/", 1)
                nested.setdefault(key, {})[name] = value
        merged = statistics.merge_all(merged, statistics.from_json(nested))
    expected = Dataset(shared_sample / "dataset").stats
    assert merged.keys() == expected.keys()
    for key, feature in expected.items():
        for name, value in feature.items():
            assert merged[key][name].shape == value.shape
            assert np.allclose(merged[key][name], value, rtol=1e-6, atol=1e-9), (key, name)


def test_written_statistics(writer, dataset_path):
    """`meta/stats.json` holds every feature, with LeRobot's names and shapes, over all episodes."""
    rng = np.random.default_rng(3)
    states, brightness = [], []
    for length in (6, 11):
        for index in range(length):
            states.append(rng.normal(size=3).astype(np.float32))
            image = rng.integers(0, 256, (32, 48, 3), np.uint8)
            brightness += [image / 255] if index % ImageHistogram.FRAME_STRIDE == 0 else []
            frame = {"observation.state": states[-1], "action": states[-1][:1], "observation.images.cam_high": image}
            writer.add_frame(frame)
        writer.save_episode("x")
    raw = msgspec.json.decode((dataset_path / "meta/stats.json").read_bytes())
    assert raw.keys() == Dataset(dataset_path).features.keys()
    assert all(tuple(feature) == statistics.NAMES for feature in raw.values())
    stats = Dataset(dataset_path).stats
    assert np.allclose(stats["observation.state"]["std"], np.std(np.float64(states), axis=0), rtol=1e-9)
    assert np.allclose(stats["index"]["mean"], 8)
    assert stats["observation.images.cam_high"]["mean"].shape == (3, 1, 1)
    assert np.allclose(stats["observation.images.cam_high"]["mean"].ravel(), np.mean(brightness, axis=(0, 1, 2)))
    assert stats["observation.images.cam_high"]["count"] == [len(brightness)]
