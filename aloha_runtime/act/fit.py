"""Whether a dataset is sound, and whether it is one for a given policy; the refusal says what does not fit and why."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.act.config import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, ACTConfig, feature_type
from aloha_runtime.data.check_rows import check_rows
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.statistics import FeatureStats, vector_stats
from aloha_runtime.data.units import flat_names, is_of_aloha, refuse_other_order, refuse_other_units
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, NAMES

STD_FLOOR = 1e-2
"""Smallest standard deviation to normalise a joint with (rad, or gripper opening): one that rests all the time must not
have its noise blown up. The original ACT clips at the same value."""
STATS_TOLERANCE = 0.1
"""How far a mean may lie from that of the frames themselves, in standard deviations, and how far those may differ: much
more than rounding, much less than one forgotten or edited episode in ten moves them."""
IMAGE_TOLERANCE = 0.25
"""The same for the mean colour (0..1) of a few frames: they are a small sample, but 0..255 or another camera shows."""
SAMPLED_FRAMES = 8
FAR_STD = 20.0
"""A mean this many of the policy's standard deviations away is another unit or another robot, not another task."""


def refuse_unfit_data(
    dataset: Dataset,
    config: ACTConfig,
    *,
    fps: float | None = None,
    policy_stats: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Raise DatasetError unless the policy can go on learning from `dataset`, or be judged on it.

    `fps`: rate (Hz) of the policy's actions, if known. `policy_stats`: what it normalises with, if it keeps those.
    """
    path = dataset.path
    for name, (height, width) in config.cameras.items():
        size = dataset.cameras.get(name)
        if size is None:
            raise DatasetError(
                f"{path} has no camera {name}, through which the policy looks; it has: {_listed(dataset.cameras)}."
            )
        if size != (height, width):
            raise DatasetError(
                f"{path}: {name} is {size[1]}x{size[0]}, the policy was made for {width}x{height}. Record at that"
                " size, or train a new policy."
            )
    for name, shape in {**config.input_shapes, **config.output_shapes}.items():
        if feature_type(name) != "VISUAL" and dataset.info.vectors.get(name) != shape[0]:
            found = dataset.info.vectors.get(name)
            has = f"has {found} numbers" if found else "is missing"
            raise DatasetError(f"{path}: {name} {has}, the policy was made for {shape[0]}. Choose another dataset.")
    if fps is not None and dataset.fps != fps:
        raise DatasetError(
            f"{path} has {dataset.fps:g} frames/s, the policy's actions are {fps:g} a second: they would be carried out"
            f" {fps / dataset.fps:.2g} times as fast. Choose a dataset of {fps:g} frames/s, or train a new policy."
        )
    vectors = [name for name in (*config.input_shapes, ACTION) if feature_type(name) != "VISUAL"]
    refuse_unsound_data(dataset, list(config.cameras), vectors)
    for name in vectors:
        if name == ENVIRONMENT_STATE:  # joints have a floor under their deviation, this has none
            names = flat_names(dataset.features[name].names)
            _refuse_constant(f"{path}: {name}", names, dataset.vectors(name))
        if policy_stats is not None and name in policy_stats:
            _refuse_far(dataset, name, policy_stats[name])


def refuse_untrainable_data(dataset: Dataset, cameras: Sequence[str]) -> tuple[str, ...]:
    """Raise DatasetError unless ACT can learn from `dataset` through `cameras`; returns the vectors it learns from."""
    path, vectors = dataset.path, dataset.info.vectors
    for name in (STATE, ACTION):
        if name not in vectors:
            raise DatasetError(f"{path} has no {name}, which ACT needs; it has: {', '.join(vectors)}")
    if unknown := [name for name in cameras if name not in dataset.cameras]:
        raise DatasetError(f"{path} has no camera {unknown[0]!r}; it has: {', '.join(dataset.cameras) or 'none'}")
    if not len(dataset):
        raise DatasetError(f"{path} holds no finished episode; record some first")
    chosen = tuple(name for name in (STATE, ACTION, ENVIRONMENT_STATE) if name in vectors)
    refuse_unsound_data(dataset, cameras, chosen)
    return chosen


def refuse_unsound_data(dataset: Dataset, cameras: Sequence[str], vectors: Sequence[str]) -> None:
    """Raise DatasetError unless numbers and pictures are what they are called and the statistics are theirs.

    A joint that always rests is no fault (one-armed tasks): it is normalised with `STD_FLOOR`.
    """
    for finding in check_rows(dataset):  # first: with rows that do not count, every other message would mislead
        raise DatasetError(f"{dataset.path}: {finding}")
    for name in vectors:
        values = dataset.vectors(name)
        names, where = flat_names(dataset.features[name].names), f"{dataset.path}: {name}"
        _refuse_not_finite(where, names, values)
        if name in (STATE, ACTION) and (is_of_aloha(names) or (not names and values.shape[1] == DOF)):
            refuse_other_order(where, names or NAMES)
            refuse_other_units(where, values)
        if name == ACTION:
            _refuse_standstill(where, values)
        _refuse_other_stats(where, _stats(dataset, name), vector_stats(values))
    for camera in cameras:
        _refuse_other_pictures(dataset, camera)


def _stats(dataset: Dataset, name: str) -> FeatureStats:
    if name not in dataset.stats:
        raise DatasetError(f"{dataset.path}/meta/stats.json has no entry for {name}; compute the statistics again.")
    return dataset.stats[name]


def _refuse_not_finite(where: str, names: Sequence[str], values: NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        frame, number = (int(place) for place in np.argwhere(~np.isfinite(values))[0])
        raise DatasetError(
            f"{where} has values that are not finite: {_name(names, number)} is {values[frame, number]:g} in frame"
            f" {frame}; drop those episodes"
        )


def _refuse_standstill(where: str, values: NDArray[np.float32]) -> None:
    if len(values) > 1 and not np.ptp(values, axis=0).any():
        raise DatasetError(f"{where} never changes in {len(values)} frames: there is nothing to learn. Record again.")


def _refuse_constant(where: str, names: Sequence[str], values: NDArray[np.float32]) -> None:
    rests = np.ptp(values, axis=0) == 0
    if rests.any():
        what = _name(names, int(rests.argmax()))
        raise DatasetError(
            f"{where}: {what} is always {values[0, rests.argmax()]:g}: its standard deviation is 0, which cannot"
            " normalise what a policy then sees. Leave it out, or vary it."
        )


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else f"number {number}"


def _refuse_other_stats(where: str, kept: FeatureStats, found: FeatureStats) -> None:
    """The statistics beside the data against those of the data."""
    scale = np.maximum(found["std"], STD_FLOOR)
    for key in ("mean", "std"):
        if kept[key].shape != found[key].shape or not np.isfinite(kept[key]).all():
            raise DatasetError(f"{where}: {key} in meta/stats.json is damaged; compute the statistics again.")
        off = np.abs(kept[key] - found[key]) / scale
        if off.max() > STATS_TOLERANCE:
            number = int(off.argmax())
            raise DatasetError(
                f"{where}: {key} of number {number} is {kept[key][number]:.4g} in meta/stats.json and"
                f" {found[key][number]:.4g} in the frames; compute the statistics again."
            )


def _refuse_other_pictures(dataset: Dataset, camera: str) -> None:
    """A few frames, spread over the dataset, against the statistics."""
    name = IMAGE_PREFIX + camera
    kept, where = _stats(dataset, name), f"{dataset.path}: {name}"
    mean, std = (np.asarray(kept[key], dtype=np.float64).reshape(-1) for key in ("mean", "std"))
    if mean.max() > 1 or not np.isfinite([*mean, *std]).all():
        raise DatasetError(f"{where}: mean {mean.max():.3g} in meta/stats.json is not in 0..1; compute them again.")
    if std.max() == 0:
        others = [other for other in dataset.cameras if other != camera]
        remedy = f"train without it (--cameras {','.join(others)})" if others else "record again"
        raise DatasetError(f"{where}: every pixel is the same. Is the lens covered? Look at it, or {remedy}.")
    picked = np.linspace(0, len(dataset) - 1, min(SAMPLED_FRAMES, len(dataset))).astype(int)
    seen = np.mean([dataset.frame(camera, int(index)).mean(axis=(0, 1)) for index in picked], axis=0) / 255
    if np.abs(seen - mean).max() > IMAGE_TOLERANCE:
        raise DatasetError(
            f"{where}: mean colour is {_numbers(mean)} in meta/stats.json and {_numbers(seen)} in the frames; compute"
            " the statistics again."
        )


def _refuse_far(dataset: Dataset, name: str, kept: Mapping[str, Any]) -> None:
    """Data far outside of what the policy normalises with."""
    mean, std = (np.asarray(kept[key], dtype=np.float64) for key in ("mean", "std"))
    found = dataset.vectors(name).mean(axis=0, dtype=np.float64)
    off = np.abs(found - mean) / np.maximum(std, STD_FLOOR)
    if off.max() > FAR_STD:
        number = int(off.argmax())
        raise DatasetError(
            f"{dataset.path}: {name} number {number} is {found[number]:.3g} on average, the policy expects"
            f" {mean[number]:.3g} +- {std[number]:.2g}: another unit or robot. Convert the dataset, or train"
            " a new policy."
        )


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "none"


def _numbers(values: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values) + ")"
