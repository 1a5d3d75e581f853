"""Every engine against eager: what is folded changes nothing, graphs are of the checkpoint's own weights, and whatever
cannot run here says so."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reference_vectors as vectors
import small_policy
import torch
from torch import nn

from aloha_runtime.act import ACTPolicy
from aloha_runtime.act import engine_files as files
from aloha_runtime.act.config import aloha_inputs
from aloha_runtime.act.engine_choice import choose, open_engine, some_observation
from aloha_runtime.act.engines import EAGER, FP32_ENGINES, Observation, as_arrays
from aloha_runtime.act.fold import FoldedACT
from aloha_runtime.config import EngineName, policy_path
from aloha_runtime.errors import CheckpointError

TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and a busy machine makes threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def folded_chunk(folded: FoldedACT, policy: ACTPolicy, observation: Observation) -> np.ndarray:
    arrays = as_arrays(policy.config, observation)
    with torch.inference_mode():
        return folded(*[torch.from_numpy(arrays[name]) for name in folded.names]).numpy()


@pytest.mark.parametrize("name", vectors.NAMES)
def test_the_folded_network_agrees_with_lerobot_on_every_reference_vector(name: str) -> None:
    vector = vectors.load(name)
    folded = FoldedACT(vector.policy)
    chunk = folded_chunk(folded, vector.policy, vector.observation(3))
    np.testing.assert_allclose(chunk, vector.arrays["chunks"][3], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("backbone", ["small_cnn", "efficientnet_lite0", "resnet18"])
def test_the_folded_network_agrees_for_cameras_of_different_sizes_and_statistics(backbone: str) -> None:
    shapes = aloha_inputs({"cam_high": (64, 96), "cam_low": (96, 64), "cam_left_wrist": (64, 64)})
    config = small_policy.config(input_shapes=shapes, vision_backbone=backbone, n_decoder_layers=2, estimate_dim=0)
    stats = dict(small_policy.stats())
    for index, name in enumerate(config.images):
        means = torch.tensor([0.3, 0.4, 0.5]).reshape(3, 1, 1) + 0.05 * index
        stats[name] = {"mean": means, "std": torch.full((3, 1, 1), 0.2 + 0.02 * index)}
    torch.manual_seed(0)
    policy = ACTPolicy(config, stats, pretrained_backbone=False).eval()
    for module in policy.modules():
        if type(module).__name__ == "FrozenBatchNorm2d":  # as training on ImageNet leaves it, not as it starts
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.8, 1.2)
            module.bias.normal_(0, 0.1)
    seen = some_observation(policy)
    expected = policy.predict_action_chunk(seen).numpy()
    np.testing.assert_allclose(folded_chunk(FoldedACT(policy), policy, seen), expected, atol=TOLERANCE, rtol=0)


def test_half_precision_keeps_vectors_and_actions_in_float32() -> None:
    policy = ACTPolicy.from_pretrained(policy_path("demo"))
    folded = FoldedACT(policy).half_precision()
    seen = some_observation(policy)
    chunk = folded_chunk(folded, policy, seen)
    assert chunk.dtype == np.float32
    assert 0 < np.abs(chunk - policy.predict_action_chunk(seen).numpy()).max() < 0.02
    assert all(module.weight.dtype == torch.float16 for module in folded.modules() if isinstance(module, nn.Conv2d))


def test_folding_leaves_the_policy_as_it_was() -> None:
    vector = vectors.load("aloha")
    before = {name: tensor.clone() for name, tensor in vector.policy.state_dict().items()}
    FoldedACT(vector.policy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vector.policy.state_dict().items())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policy in a folder of its own, so that its graphs are made here."""
    folder = tmp_path_factory.mktemp("demo")
    ACTPolicy.from_pretrained(policy_path("demo")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", FP32_ENGINES)
def test_float32_engines_agree_with_eager_on_the_shipped_policy(checkpoint: Path, name: str) -> None:
    policy = ACTPolicy.from_pretrained(checkpoint)
    engine = open_engine(name, policy, checkpoint, threads=1)
    seen = some_observation(policy)
    np.testing.assert_allclose(engine.predict(seen), policy.predict_action_chunk(seen).numpy(), atol=1e-5, rtol=0)
    first = engine.predict(seen)
    engine.predict({name: np.zeros_like(value) for name, value in seen.items()})
    np.testing.assert_array_equal(first, engine.predict(seen))  # a chunk handed out is not written to again
    engine.close()


def test_a_graph_of_other_weights_is_made_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    policy = ACTPolicy(small_policy.config(), small_policy.stats())
    policy.eval().save_pretrained(tmp_path)
    path = files.ensure_fp32(policy, tmp_path)
    made = path.stat().st_mtime_ns
    assert files.ensure_fp32(policy, tmp_path).stat().st_mtime_ns == made
    with torch.no_grad():
        policy.model.action_head.weight.add_(1)
    policy.save_pretrained(tmp_path)
    seen = some_observation(policy)
    chunk = open_engine("onnx-fp32", policy, tmp_path, threads=1).predict(seen)
    np.testing.assert_allclose(chunk, policy.predict_action_chunk(seen).numpy(), atol=TOLERANCE, rtol=0)


def test_an_export_of_other_weights_is_refused(checkpoint: Path) -> None:
    policy = ACTPolicy.from_pretrained(checkpoint)
    with pytest.raises(CheckpointError, match=r"onnx-int8 has not been exported .* aloha export"):
        open_engine("onnx-int8", policy, checkpoint, threads=1)
    folder = files.home(checkpoint)
    folder.mkdir(exist_ok=True)
    (folder / files.INT8_GRAPH).write_bytes(b"")
    files.write_record(folder, files.Record("onnx-int8", files.INT8_GRAPH, "0" * 64, files.Error(0, 0, 0, 0, 1), "x"))
    with pytest.raises(CheckpointError, match="other weights"):
        open_engine("onnx-int8", policy, checkpoint, threads=1)
    (folder / "onnx-int8.json").write_text("{}")
    with pytest.raises(CheckpointError, match="export it again"):
        open_engine("onnx-int8", policy, checkpoint, threads=1)
    (folder / "onnx-int8.json").unlink()


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("onnx-fp32", files.Error(0, 2e-4, 0, 0, 5), "0.0002"),
        ("onnx-int8", files.Error(0.06, 0.1, 1, 1, 5), "0.06 in normalised units"),
        ("openvino-bf16", files.Error(0.01, 0.1, 12, 30, 5), "12 mrad"),
    ],
)
def test_an_engine_too_far_from_eager_is_refused_with_the_figure(name: str, error: files.Error, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        files.judge(name, error)
    files.judge(name, files.Error(1e-5, 1e-5, 0.01, 0.01, 5))


def test_auto_stays_with_eager_where_that_is_enough_and_makes_nothing(tmp_path: Path) -> None:
    policy = ACTPolicy(small_policy.config(), small_policy.stats()).eval()
    policy.save_pretrained(tmp_path)
    choice = choose("auto", policy, tmp_path, 1, enough_ms=1e9, report=pytest.fail)
    assert choice.engine.name == EAGER
    assert not (tmp_path / files.FOLDER).exists()


def test_auto_takes_the_fastest_of_all_that_run_here(checkpoint: Path) -> None:
    policy = ACTPolicy.from_pretrained(checkpoint)
    choice = choose("auto", policy, checkpoint, 1, enough_ms=0, report=pytest.fail)
    assert set(choice.ms) == {EAGER, *FP32_ENGINES}
    assert choice.ms[choice.engine.name] == min(choice.ms.values())
    assert choice.engine.name in str(choice)
    seen = some_observation(policy)
    expected = policy.predict_action_chunk(seen).numpy()
    np.testing.assert_allclose(choice.engine.predict(seen), expected, atol=1e-5, rtol=0)


def test_auto_goes_on_without_what_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = ACTPolicy(small_policy.config(sample_latent=True), small_policy.stats()).eval()
    policy.save_pretrained(tmp_path)
    reports: list[str] = []
    choice = choose("auto", policy, tmp_path, 1, enough_ms=0, report=reports.append)
    assert choice.engine.name == EAGER
    assert len(reports) == len(FP32_ENGINES)
    assert all("sample_latent" in report for report in reports)


def test_graphs_go_to_the_users_cache_when_the_checkpoint_is_read_only(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.home(checkpoint) == checkpoint / files.FOLDER
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    assert files.home(checkpoint).is_relative_to(tmp_path)


def test_observations_of_the_wrong_kind_are_named() -> None:
    policy = ACTPolicy(small_policy.config(), small_policy.stats())
    seen = small_policy.observation()
    assert as_arrays(policy.config, seen)[small_policy.CAMERA].dtype == np.uint8
    for change, text in (
        ({small_policy.CAMERA: seen[small_policy.CAMERA] / 255}, "float64 .* takes uint8 pixels"),
        ({small_policy.CAMERA: seen[small_policy.CAMERA][None]}, r"\(1, 48, 64, 3\)"),
        ({"observation.state": np.zeros(13)}, r"observation.state is float64 \(13,\)"),
    ):
        with pytest.raises(ValueError, match=text):
            as_arrays(policy.config, seen | change)
    with pytest.raises(ValueError, match=r"lacks observation\.state"):
        as_arrays(policy.config, {small_policy.CAMERA: seen[small_policy.CAMERA]})


def test_names_of_engines_are_those_of_the_rig_configuration(checkpoint: Path) -> None:
    from typing import get_args

    from aloha_runtime.act.engines import ENGINES

    assert get_args(EngineName) == ("auto", *ENGINES)
    with pytest.raises(CheckpointError, match="no engine 'tensorrt'"):
        open_engine("tensorrt", ACTPolicy.from_pretrained(checkpoint), checkpoint, threads=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_engine_for_it_says_so() -> None:
    from aloha_runtime.act.engines import CudaEngine

    with pytest.raises(CheckpointError, match="needs a GPU"):
        CudaEngine(ACTPolicy(small_policy.config(), small_policy.stats()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_captured_graph_agrees_with_eager(checkpoint: Path) -> None:
    from aloha_runtime.act.engines import CudaEngine

    policy = ACTPolicy.from_pretrained(checkpoint)
    seen = some_observation(policy)
    chunk = CudaEngine(policy).predict(seen)
    np.testing.assert_allclose(chunk, policy.predict_action_chunk(seen).numpy(), atol=0.02, rtol=0)
