"""Every piece of code in docs/act.md runs as it is written there, beside small files of the names it uses."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_policy as small
import torch
import torchvision

from aloha_runtime import cli
from aloha_runtime.act import ACTPolicy
from aloha_runtime.act.config import aloha_inputs

PAGE = Path(__file__).parents[2] / "docs" / "act.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [code.replace("\\\n", " ").strip() for language, code in BLOCKS if language == "bash"]

SHORTER = {
    "train": "--steps 1 --batch-size 2 --validation-frames 2 --policy.dim-model 32 --policy.n-heads 2 "
    "--policy.dim-feedforward 64 --policy.pretrained-backbone false --tensorboard false",
    "eval": "--episodes 1 --max-steps 3 --workers 1",
}
"""What is added to a command so that it ends within seconds; a later option wins."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current directory, with the files that the page speaks of."""
    path = tmp_path_factory.mktemp("recipes")
    small.write_dataset(path / "outputs/transfer_cube")
    last = "checkpoints/last/pretrained_model"
    ACTPolicy(small.config(), small.stats()).save_pretrained(path / "outputs/act" / last)
    top = small.config(input_shapes=aloha_inputs({"top": (small.HEIGHT, small.WIDTH)}))
    stats = {name.replace("cam_high", "top"): value for name, value in small.stats().items()}
    ACTPolicy(top, stats).save_pretrained(path / "outputs/act_gym" / last)
    weights = torchvision.models.resnet50(weights=None).state_dict()
    torch.save({"vip": {f"module.convnet.{name}": value for name, value in weights.items()}}, path / "vip.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(torch, "set_num_threads", lambda _count: None)  # those of the other tests stay
        patch.setenv("TORCH_HOME", str(path / "torch"))
        patch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing is downloaded
        yield path


def test_the_page_has_its_recipes() -> None:
    headings = re.findall(r"^## (.*)", PAGE.read_text(), flags=re.MULTILINE)
    assert len(headings) >= 11
    assert len(PYTHON) >= 9
    assert len(COMMANDS) >= 4


def test_the_python_of_the_page_runs_from_top_to_bottom(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for number, code in enumerate(PYTHON):
        exec(compile(code, f"{PAGE.name}, python block {number + 1}", "exec"), names)
    assert (folder / "outputs/mine/config.json").exists()
    said = capsys.readouterr().out
    assert "torch.Size([100, 14]) torch.Size([100])" in said
    assert names["action"].shape == (14,)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[:6]))
def test_the_commands_of_the_page_run(folder: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, verb, *arguments = shlex.split(command)
    assert program == "aloha"
    monkeypatch.setattr(sys, "argv", [program, verb, *arguments, *SHORTER[verb].split()])
    cli.app(standalone_mode=False)
