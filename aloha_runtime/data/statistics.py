"""Dataset statistics as LeRobot keeps them: per feature min, max, mean, std, count and five quantiles.

An episode's vectors are summarised exactly. Images are summarised through a histogram per colour channel, which loses
nothing because pixels have 256 values. Episodes are merged by count, so a dataset's statistics never need its frames
again; like LeRobot, the quantiles of a dataset are the count-weighted mean of its episodes' quantiles.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FeatureStats = dict[str, NDArray[Any]]
"""Name of the statistic to its value: (D,) for vectors, (3, 1, 1) in 0..1 for images; "count" is (1,) int64."""
Stats = dict[str, FeatureStats]
"""Feature to its statistics."""

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)


def vector_stats(values: NDArray[Any]) -> FeatureStats:
    """Statistics over the first axis of (T, D) values, in float64; quantiles are the inverted distribution function."""
    values = values.astype(np.float64)
    stats: FeatureStats = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
    }
    for name, level in QUANTILES.items():
        stats[name] = np.quantile(values, level, axis=0, method="inverted_cdf")
    return stats


class ImageHistogram:
    """Running statistics of (H, W, 3) uint8 frames.

    Like LeRobot it looks at a subsample: every `FRAME_STRIDE`th frame, thinned to about 150 pixels a side when larger
    than 300.
    """

    FRAME_STRIDE = 5
    """At 50 Hz this is ten looks a second, more than LeRobot's T^0.75 frames for episodes longer than 625 frames."""
    THIN_ABOVE = 300
    THIN_TO = 150

    def __init__(self) -> None:
        self._looks: list[NDArray[np.int32]] = []
        """(3, 256) pixels by channel and value of each frame looked at; 3 kB each, so that a part can be summarised."""
        self._seen = 0

    def add(self, image: NDArray[np.uint8]) -> None:
        """Take one frame into account, or skip it as the subsample says."""
        if self._seen % self.FRAME_STRIDE == 0:
            longest = max(image.shape[:2])
            step = longest // self.THIN_TO if longest > self.THIN_ABOVE else 1
            thin = image[::step, ::step]
            counts = [np.bincount(thin[..., channel].ravel(), minlength=256) for channel in range(3)]
            self._looks.append(np.array(counts, dtype=np.int32))
        self._seen += 1

    def repeat(self) -> None:
        """The frame before comes once more."""
        if self._seen % self.FRAME_STRIDE == 0:
            self._looks.append(self._looks[-1])
        self._seen += 1

    def stats(self, first: int = 0, frames: int | None = None) -> FeatureStats:
        """Statistics of `frames` frames from `first` on (all), each (3, 1, 1), of values scaled to 0..1; "count" is the
        number of frames looked at. The nearest look before a part that holds none stands for it."""
        end = self._seen if frames is None else first + frames
        begin = -(-first // self.FRAME_STRIDE)
        stop = max(-(-end // self.FRAME_STRIDE), begin + 1)
        begin, stop = min(begin, len(self._looks) - 1), min(stop, len(self._looks))
        counts = np.stack(self._looks[begin:stop]).sum(axis=0, dtype=np.int64)
        values = np.arange(256) / 255
        weights = counts / counts.sum(axis=1, keepdims=True)
        mean = weights @ values
        cumulative = counts.cumsum(axis=1)
        present = counts > 0
        found = {
            "min": values[present.argmax(axis=1)],
            "max": values[255 - present[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1)),
        }
        for name, level in QUANTILES.items():
            found[name] = values[(cumulative >= level * cumulative[:, -1:]).argmax(axis=1)]
        stats = {name: value.reshape(3, 1, 1) for name, value in found.items()}
        return {**stats, "count": np.array([stop - begin])}


def merge(first: FeatureStats, second: FeatureStats) -> FeatureStats:
    """Statistics of two sets of samples together.

    With counts n and m, weight w = m / (n + m) and d = mean2 - mean1: mean = mean1 + w d and
    var = (1 - w) var1 + w var2 + w (1 - w) d^2 (Chan, Golub, LeVeque 1983).
    """
    total = first["count"] + second["count"]
    weight = float(second["count"][0] / total[0])
    delta = second["mean"] - first["mean"]
    variance = (1 - weight) * first["std"] ** 2 + weight * second["std"] ** 2 + weight * (1 - weight) * delta**2
    merged: FeatureStats = {
        "min": np.minimum(first["min"], second["min"]),
        "max": np.maximum(first["max"], second["max"]),
        "mean": first["mean"] + weight * delta,
        "std": np.sqrt(variance),
        "count": total,
    }
    for name in QUANTILES if first.keys() & second.keys() >= QUANTILES.keys() else ():
        merged[name] = (1 - weight) * first[name] + weight * second[name]
    return merged


def merge_all(first: Stats, second: Stats) -> Stats:
    """`merge` feature by feature; a feature that only one side has is kept as it is."""
    merged = {**first, **second}
    for key in first.keys() & second.keys():
        merged[key] = merge(first[key], second[key])
    return merged


def to_json(stats: Stats) -> dict[str, dict[str, Any]]:
    """Nested lists, as `meta/stats.json` and the episode rows hold them."""
    return {key: {name: feature[name].tolist() for name in NAMES if name in feature} for key, feature in stats.items()}


def from_json(raw: Mapping[str, Mapping[str, Any]]) -> Stats:
    """The reverse of `to_json`."""
    kinds = {"count": np.int64}
    return {
        key: {name: np.asarray(value, dtype=kinds.get(name, np.float64)) for name, value in feature.items()}
        for key, feature in raw.items()
    }
