"""Processor pipelines of LeRobot's policies: each step carried out, or refused by its name in one line.

The numbers that LeRobot itself makes of these steps are compared in tests/interop/test_lerobot_pipelines.py.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_policy as small
import torch
from safetensors.torch import load_file, save_file

from aloha_runtime.act import ACTPolicy, header
from aloha_runtime.act.config import ACTION, IMAGE_PREFIX, STATE
from aloha_runtime.act.engine_files import digest
from aloha_runtime.act.engines import as_arrays
from aloha_runtime.act.fold import FoldedACT
from aloha_runtime.act.pipeline_file import AFTER, BEFORE
from aloha_runtime.act.pipeline_save import STATE_AFTER, STATE_BEFORE
from aloha_runtime.errors import CheckpointError

Steps = list[dict[str, Any]]
NAMES = [f"{side}_{joint}" for side in ("left", "right") for joint in (*"abcdef", "gripper")]


def rewrite(directory: Path, pipeline: str, change: Callable[[Steps], object]) -> None:
    path = directory / f"{pipeline}.json"
    content = json.loads(path.read_text())
    change(content["steps"])
    path.write_text(json.dumps(content))


def step(name: str, **settings: Any) -> dict[str, Any]:
    return {"registry_name": name, "config": settings}


def crop_resize(directory: Path, crop: list[int] | None, size: list[int] | None) -> None:
    crops = None if crop is None else {small.CAMERA: crop}
    added = step("image_crop_resize_processor", crop_params_dict=crops, resize_size=size)
    rewrite(directory, BEFORE, lambda steps: steps.insert(2, added))


def relative(directory: Path, **settings: Any) -> None:
    rewrite(directory, BEFORE, lambda s: s.insert(2, step("relative_actions_processor", enabled=True, **settings)))
    rewrite(directory, AFTER, lambda s: s.insert(1, step("absolute_actions_processor", enabled=True)))


def set_both(directory: Path, **settings: Any) -> None:
    rewrite(directory, BEFORE, lambda s: s[-1]["config"].update(settings))
    rewrite(directory, AFTER, lambda s: s[0]["config"].update(settings))


def chunk(directory: Path, observation: dict[str, Any] | None = None) -> torch.Tensor:
    return ACTPolicy.from_pretrained(directory).predict_action_chunk(observation or small.observation())


def test_relative_actions_become_joint_targets(saved: Path) -> None:
    offsets, state = chunk(saved), torch.from_numpy(small.observation()[STATE])
    relative(saved, exclude_joints=["Gripper"], action_names=NAMES)
    wanted = offsets + state * torch.tensor(["gripper" not in name for name in NAMES])
    torch.testing.assert_close(chunk(saved), wanted, atol=1e-6, rtol=0)
    batch = {name: np.stack([value, value]) for name, value in small.observation().items()}
    torch.testing.assert_close(chunk(saved, batch), wanted.expand(2, -1, -1), atol=1e-5, rtol=0)


def test_training_of_a_relative_policy_sees_offsets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ACTPolicy(small.config(use_vae=True), small.stats()).save_pretrained(tmp_path)
    batch = {name: torch.from_numpy(value) for name, value in small.observation(2).items()}
    offsets, state = torch.rand(2, 8, 14), batch[STATE][:, None]
    noise = torch.zeros(2, 32)
    expected = ACTPolicy.from_pretrained(tmp_path)({**batch, ACTION: offsets}, noise)
    relative(tmp_path)
    policy = ACTPolicy.from_pretrained(tmp_path)
    output = policy({**batch, ACTION: offsets + state}, noise)
    torch.testing.assert_close(output["mu"], expected["mu"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output["action"], expected["action"] + state, atol=1e-5, rtol=0)


def test_a_crop_is_what_the_network_sees(saved: Path) -> None:
    seen = small.observation()
    expected = chunk(saved)
    crop_resize(saved, [0, 0, 32, 32], None)
    cropped = chunk(saved)
    assert (cropped - expected).abs().max() > 1e-4
    outside = seen[small.CAMERA].copy()
    outside[32:, :] = outside[:, 32:] = 0
    torch.testing.assert_close(chunk(saved, {**seen, small.CAMERA: outside}), cropped, atol=0, rtol=0)


def test_a_renamed_camera_is_asked_of_the_rig_by_its_own_name(saved: Path) -> None:
    expected = chunk(saved)
    top = IMAGE_PREFIX + "top"
    rewrite(saved, BEFORE, lambda s: s[0].update(config={"rename_map": {top: small.CAMERA, "unused": "other"}}))
    assert list(header.load_config(saved).cameras) == ["top"]
    seen = small.observation()
    seen[top] = seen.pop(small.CAMERA)
    assert torch.equal(chunk(saved, seen), expected)


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])
def test_the_pipelines_say_how_numbers_are_normalised_not_config_json(saved: Path, mode: str) -> None:
    statistics = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99")}
    first, second = statistics.get(mode, ("q10", "q90"))
    low, high = torch.full((14,), 0.3), torch.full((14,), 1.1)
    for path in (saved / STATE_BEFORE, saved / STATE_AFTER):
        kept = load_file(path)
        for name in (STATE, ACTION):
            kept |= {f"{name}.{first}": low.clone(), f"{name}.{second}": high.clone()}
        save_file(kept, path)
    set_both(saved, norm_map={"STATE": mode, "ACTION": mode}, eps=0.01)
    normalizer = ACTPolicy.from_pretrained(saved).normalizer
    x = torch.linspace(-1, 1, 14)
    wanted = {"MEAN_STD": (x - 0.3) / 1.11, "IDENTITY": x}.get(mode, 2 * (x - 0.3) / 0.8 - 1)
    torch.testing.assert_close(normalizer.normalize(STATE, x), wanted)
    back = {"MEAN_STD": x * 1.1 + 0.3, "IDENTITY": x}.get(mode, (x + 1) / 2 * 0.8 + 0.3)
    torch.testing.assert_close(normalizer.unnormalize_action(x), back)
    assert torch.equal(normalizer.normalize(small.CAMERA, x), x), "no mode for images in this norm_map"


def everything(directory: Path) -> None:
    crop_resize(directory, [2, 4, 40, 50], [32, 64])
    relative(directory, exclude_joints=["gripper"], action_names=NAMES)
    for path in (directory / STATE_BEFORE, directory / STATE_AFTER):
        kept = load_file(path)
        for name, size in ((STATE, (14,)), (ACTION, (14,)), (small.CAMERA, (3, 1, 1))):
            kept |= {f"{name}.min": torch.full(size, -0.7), f"{name}.max": torch.full(size, 0.9)}
        save_file(kept, path)
    set_both(directory, eps=1e-4, norm_map={"VISUAL": "MIN_MAX", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"})


def test_the_folded_network_and_a_saved_copy_do_the_same(saved: Path, tmp_path: Path) -> None:
    everything(saved)
    policy = ACTPolicy.from_pretrained(saved)
    expected = policy.predict_action_chunk(small.observation())
    folded = FoldedACT(policy)
    arrays = as_arrays(policy.config, small.observation())
    with torch.inference_mode():
        actual = folded(*[torch.from_numpy(arrays[name]) for name in folded.names])
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    policy.save_pretrained(tmp_path / "copy")
    assert torch.equal(chunk(tmp_path / "copy"), expected)


def test_an_engine_of_other_pipelines_is_of_another_checkpoint(saved: Path) -> None:
    before = digest(saved)
    relative(saved)
    assert digest(saved) != before


def test_statistics_inside_the_weights_do_not_replace_the_pipelines(saved: Path) -> None:
    """LeRobot today passes over them, and executes the pipelines."""
    expected = chunk(saved)
    weights = load_file(saved / header.WEIGHTS)
    weights["unnormalize_outputs.buffer_action.mean"] = torch.ones(14)
    save_file(weights, saved / header.WEIGHTS)
    assert torch.equal(chunk(saved), expected)


def add(pipeline: str, index: int, entry: Any) -> Callable[[Path], None]:
    return lambda directory: rewrite(directory, pipeline, lambda steps: steps.insert(index, entry))


def settings(pipeline: str, index: int, **changes: Any) -> Callable[[Path], None]:
    return lambda directory: rewrite(directory, pipeline, lambda steps: steps[index]["config"].update(changes))


def entry(pipeline: str, index: int, **changes: Any) -> Callable[[Path], None]:
    return lambda directory: rewrite(directory, pipeline, lambda steps: steps[index].update(changes))


def crop(*numbers: int) -> dict[str, Any]:
    return step("image_crop_resize_processor", crop_params_dict={small.CAMERA: list(numbers)})


ON = {"enabled": True}
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown step": (add(BEFORE, 3, step("smooth_actions")), "step 3 is 'smooth_actions', which this runtime does not"),
    "tokenizer": (add(BEFORE, 3, step("tokenizer_processor", tokenizer_name="x")), "step 3 is 'tokenizer_processor'"),
    "class": (
        entry(BEFORE, 0, **{"class": "os.system"}),
        "step 0 is 'rename_observations_processor', which this runtime does not",
    ),
    "only a class": (add(AFTER, 0, {"class": "evil.Step"}), "step 0 is 'evil.Step', which this runtime does not"),
    "step of the other side": (add(AFTER, 0, step("normalizer_processor")), "step 0 is 'normalizer_processor'"),
    "unknown setting": (settings(BEFORE, 3, clip=5), "step 3 (normalizer_processor): Object contains unknown field"),
    "statistics in settings": (settings(AFTER, 0, stats={}), "unknown field `stats`"),
    "unknown key of a step": (entry(BEFORE, 1, enabled=False), "step 1: unknown key 'enabled'"),
    "no object": (add(BEFORE, 0, "rename"), "step 0 is no JSON object"),
    "settings are null": (entry(BEFORE, 1, config=None), "config is null, which LeRobot cannot open either"),
    "norm_map is null": (settings(BEFORE, 3, norm_map=None), "Expected `object`, got `null` - at `$.norm_map`"),
    "unknown mode": (settings(BEFORE, 3, norm_map={"STATE": "ZSCORE"}), "norm_map: STATE: 'ZSCORE' is not one of"),
    "unknown type": (settings(AFTER, 0, norm_map={"JOINTS": "MEAN_STD"}), "norm_map: 'JOINTS' is no type of feature"),
    "negative eps": (settings(BEFORE, 3, eps=-1.0), "eps is -1.0, must be finite and not negative"),
    "eps is a text": (settings(BEFORE, 3, eps="1e-8"), "Expected `float`, got `str` - at `$.eps`"),
    "eps too large": (settings(BEFORE, 3, eps=1e999), "eps is inf"),
    "half precision": (settings(BEFORE, 2, float_dtype="float16"), "float_dtype is 'float16': only float32"),
    "twice": (add(BEFORE, 0, step("rename_observations_processor")), "is there twice (step 0 as well)"),
    "crop outside": (add(BEFORE, 2, crop(0, 1, 48, 64)), "is not inside its 64x48 image"),
    "crop after normalising": (add(BEFORE, 4, crop(0, 0, 48, 64)), "stands after normalizer_processor"),
    "empty resize": (add(BEFORE, 2, step("image_crop_resize_processor", resize_size=[0, 64])), "resize_size [0, 64]"),
    "relative only": (
        add(BEFORE, 2, step("relative_actions_processor", **ON)),
        "no absolute_actions_processor makes them absolute again",
    ),
    "absolute only": (add(AFTER, 1, step("absolute_actions_processor", **ON)), "no relative_actions_processor made"),
    "nameless joints": (
        lambda directory: relative(directory, exclude_joints=["gripper"]),
        "action_names does not say which number is which",
    ),
    "absolute too early": (
        lambda directory: (
            relative(directory),
            rewrite(directory, AFTER, lambda s: s.insert(0, s.pop(1))),
        )[0],
        "stands before unnormalizer_processor",
    ),
    "joints renamed": (settings(BEFORE, 0, rename_map={"observation.joints": STATE}), "the rig gives no"),
    "renamed away": (
        settings(BEFORE, 0, rename_map={small.CAMERA: IMAGE_PREFIX + "other"}),
        "nothing else becomes the network's observation.images.cam_high",
    ),
    "two names for one": (
        settings(BEFORE, 0, rename_map={IMAGE_PREFIX + name: small.CAMERA for name in "ab"}),
        "renames both observation.images.a and observation.images.b",
    ),
    "no postprocessor": (lambda d: (d / f"{AFTER}.json").unlink(), "policy_postprocessor.json is missing"),
    "another type": (
        settings(BEFORE, 3, features={STATE: {"type": "ENV", "shape": [14]}}),
        "observation.state is of type ENV, must be STATE",
    ),
    "no steps": (lambda d: (d / f"{BEFORE}.json").write_text('{"name": "x", "steps": null}') and None, "no list of"),
    "unknown key": (lambda d: (d / f"{BEFORE}.json").write_text('{"hooks": []}') and None, "unknown key 'hooks'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_carried_out_is_refused_by_name(saved: Path, case: str) -> None:
    change, words = REFUSED[case]
    change(saved)
    with pytest.raises(CheckpointError) as caught:
        header.load_config(saved)  # before anything starts, and without the weights
    assert words in str(caught.value)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_null_where_nothing_is_meant_is_taken_as_nothing(saved: Path) -> None:
    expected = chunk(saved)
    rewrite(saved, BEFORE, lambda s: s[0].update(config={"rename_map": None}))
    crop_resize(saved, None, None)
    assert torch.equal(chunk(saved), expected)


def test_a_null_mapping_in_config_json_is_named(saved: Path) -> None:
    content = json.loads((saved / header.CONFIG).read_text())
    (saved / header.CONFIG).write_text(json.dumps({**content, "normalization_mapping": None}))
    with pytest.raises(CheckpointError, match=r"config\.json has no normalization_mapping"):
        ACTPolicy.from_pretrained(saved)
