"""`aloha record --policy P --takeover --scripted`: a scripted person corrects a policy, from the command line to the
dataset, in virtual time."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_kills import random_policy

from aloha_runtime import config
from aloha_runtime.commands.record import Wishes, record
from aloha_runtime.data import Dataset, recorded, reports
from aloha_runtime.errors import ConfigError

pytestmark = pytest.mark.long


@pytest.mark.timeout(600)
def test_a_script_takes_over_and_hands_back(tmp_path: Path) -> None:
    plain = config.load("sim").model_dump(mode="json")
    plain["sim"]["clock"] = "virtual"
    plain["recording"]["cue"] = "off"
    rig = tmp_path / "rig.yaml"
    rig.write_text(yaml.safe_dump(plain))
    dataset, policy = tmp_path / "dataset", str(random_policy(tmp_path / "policy"))
    wishes = Wishes(dataset, "whatever", 1, scripted=True, seed=3, policy=policy, takeover=True)
    record(wishes, str(rig), None, tmp_path / "run")

    found = Dataset(dataset)
    (episode,) = found.episodes
    led = found.column(recorded.INTERVENTION)
    begin, end = np.flatnonzero(led)[[0, -1]]
    assert 90 < begin < 150, "after 2 s of the policy and a squeeze"
    assert led[begin : end + 1].all(), "one stretch"
    assert 90 < end - begin < 150, "2 s"
    assert 150 < episode.length - end < 250, "the policy goes on"
    assert reports.read(dataset, 0)["outcome"] == "failure", "a random policy solves nothing, and its episode is kept"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"scripted": True, "policy": "demo"}, "nobody leads while --policy demo moves the arms: add --takeover"),
        ({"takeover": True}, "--takeover takes over from a policy: add --policy NAME"),
        ({"takeover": True, "scripted": True}, "--takeover takes over from a policy: add --policy NAME"),
        ({"scripted": True, "continuous": "save"}, "leave out --continuous"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(tmp_path: Path, more: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        record(Wishes(tmp_path / "dataset", "whatever", 1, **more), "sim", None, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
