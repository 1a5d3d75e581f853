"""No generated hostile input ends a reader in a traceback, a hang or a death; and what must be refused is."""

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hostile_run
import numpy as np
import pytest
import small_policy
import torch
from safetensors.torch import load_file, save_file

from aloha_runtime.act import ACTPolicy
from aloha_runtime.act.header import CONFIG, WEIGHTS
from aloha_runtime.damaged import reads
from aloha_runtime.errors import CheckpointError, DatasetError

CASES = 150
"""Of the 5,000 that `hostile_run.py --count 5000` tries; 10 s of CPU."""


def test_hostile_inputs_end_in_one_line() -> None:
    cases = hostile_run.run(CASES, seed=3)
    assert not (wrong := hostile_run.failed(cases)), json.dumps(wrong[0], indent=1)
    assert len(cases) == CASES
    ended = Counter(case["ended"] for case in cases)
    assert ended["refused"] > CASES / 4, "the inputs are hostile"
    assert ended["fine"] > CASES / 10, "the originals are good"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ACTPolicy(small_policy.config(), small_policy.stats()).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def weights_of(dtype: torch.dtype, value: float) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        tensors = load_file(directory / WEIGHTS)
        tensors["model.action_head.weight"] = torch.full_like(tensors["model.action_head.weight"], value).to(dtype)
        save_file(tensors, directory / WEIGHTS)

    return change


def statistics_of(value: float) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (path,) = directory.glob("policy_preprocessor_*.safetensors")
        tensors = load_file(path)
        tensors["observation.state.std"] = torch.full((14,), value)
        save_file(tensors, path)

    return change


def setting(key: str, value: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        document = json.loads((directory / CONFIG).read_text())
        (directory / CONFIG).write_text(json.dumps({**document, key: value}))

    return change


def many_tensors(directory: Path) -> None:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"layer.{index}": one for index in range(20_000)}).encode()
    (directory / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)


def larger_trunk(directory: Path) -> None:
    setting("vision_backbone", "resnet18")(directory)
    ours = json.loads((directory / "aloha.json").read_text())
    ours.pop("estimate_dim", None)  # only our small trunk estimates
    (directory / "aloha.json").write_text(json.dumps(ours))


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "8-bit floats": (weights_of(torch.float8_e4m3fn, 1.0), "model.action_head.weight holds float8_e4m3fn"),
    "whole numbers": (weights_of(torch.int8, 1.0), "model.action_head.weight holds int8"),
    "3e38": (weights_of(torch.float32, 3e38), "model.action_head.weight reach 3e.38"),
    "nan": (weights_of(torch.float32, np.nan), "are not finite"),
    "negative deviations": (statistics_of(-1.0), r"observation.state.std is -1: a deviation is not negative"),
    "deviations of nan": (statistics_of(np.nan), "observation.state.std is not finite"),
    "deviations of 3e38": (statistics_of(3e38), "observation.state.std reaches 3e.38"),
    "a million layers": (setting("n_encoder_layers", 10**6), "n_encoder_layers = 1000000: must be at most 100"),
    "more layers than weights": (setting("n_encoder_layers", 100), "layers that config.json describes have"),
    "a network with a larger trunk": (larger_trunk, "They are of different policies"),
    "a wide network": (setting("dim_feedforward", 99_999), "They are of different policies"),
    "many tensors": (many_tensors, "holds 20000 tensors, more than 10000"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_policy_has_is_refused_before_the_network_is_built(
    what: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, said = REFUSED[what]
    assert ACTPolicy.from_pretrained(saved)
    change(saved)
    if "layers" in what or "network" in what:
        monkeypatch.setattr(ACTPolicy, "__init__", lambda *_a, **_k: pytest.fail("the network is built"))
    with pytest.raises(CheckpointError, match=said):
        ACTPolicy.from_pretrained(saved)


def test_errors_of_decoders_name_the_file_and_those_of_readers_stay_as_they_are(tmp_path: Path) -> None:
    @reads(DatasetError, "Restore it.", (OSError,))
    def opened(_path: Path, error: BaseException) -> None:
        raise error

    for error, said in (
        (TypeError("int + None"), "TypeError: int . None"),
        (RecursionError(), "RecursionError"),
        (MemoryError(), "it asks for more memory than there is"),
        (IsADirectoryError(21, "Is a directory"), "IsADirectoryError"),
        (ValueError("x\n" * 5000), "ValueError: x x x"),
    ):
        with pytest.raises(DatasetError, match=f"{tmp_path} cannot be read .{said}.*Restore it.") as caught:
            opened(tmp_path, error)
        assert len(str(caught.value)) < 600
        assert "\n" not in str(caught.value)
    for kept in (DatasetError("as it is"), KeyboardInterrupt()):
        with pytest.raises(type(kept)) as other:
            opened(tmp_path, kept)
        assert other.value is kept
