"""What a shadowing policy would have done, beside what was commanded: matched by tick, on disk row by row."""

import csv
from pathlib import Path

import numpy as np
import pytest

from aloha_runtime import config
from aloha_runtime.commands import deploy
from aloha_runtime.commands.shadow import draw, job_of
from aloha_runtime.commands.shadow_log import ShadowLog, distances
from aloha_runtime.config import TighterLimits
from aloha_runtime.errors import AlohaError, ConfigError
from aloha_runtime.messages import Action, ArmsState, PolicyTick
from aloha_runtime.robot import NAMES, TICK_NS

MS = 1_000_000


def state(now_ns: int, at: float, target: float | None = None) -> ArmsState:
    return ArmsState(
        stamp_ns=now_ns,
        position=[at] * 14,
        velocity=[0.0] * 14,
        effort_ma=[0.0] * 14,
        target=None if target is None else [target] * 14,
        action_tick=-1 if target is None else now_ns // TICK_NS,
    )


def action(tick: int, value: float) -> Action:
    return Action(stamp_ns=tick * TICK_NS + MS, tick=tick, position=[value] * 14)


def test_predictions_meet_the_first_action_of_their_tick(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path / "new" / "actions.csv")
    for tick in range(10, 20):
        states = [state(tick * TICK_NS + ms * MS, tick / 10, tick + ms / 100) for ms in (2, 7, 12, 17)]
        log.add([action(tick, tick + 0.5)], states)
    assert len(log.rows) == 10
    for row, tick in zip(log.rows, range(10, 20), strict=True):
        assert row[:, 0] == pytest.approx([tick + 0.5, tick + 0.02, tick / 10])
    what, found = distances(log.rows)
    assert what == "commanded"
    assert found[:, 3] == pytest.approx([0.48] * 3, abs=1e-5)


def test_where_nobody_commands_the_distance_is_from_where_the_arms_stand(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path / "actions.csv")
    log.add([action(10, 0.7)], [state(10 * TICK_NS + 5 * MS, 0.2)])
    assert len(log.rows) == 0, "somebody's action of this tick may still come"
    log.add([], [state(15 * TICK_NS + 5 * MS, 0.2)])
    what, found = distances(log.rows)
    assert what == "position"
    assert found == pytest.approx(np.full((3, 14), 0.5), abs=1e-6)
    assert np.isnan(distances(np.empty((0, 3, 14), np.float32))[1]).all()


def test_every_row_is_on_disk_at_once_and_empty_where_unknown(tmp_path: Path) -> None:
    log = ShadowLog(tmp_path / "actions.csv")
    log.add([action(10, 0.7)], [state(11 * TICK_NS, 0.2, 0.4)])
    log.add(
        [action(30, 0.8)],
        [state(36 * TICK_NS, 0.2)],
        [PolicyTick(stamp_ns=1, tick=31, lateness_ns=0, on_time=True, reason="dark")],
    )
    with (tmp_path / "actions.csv").open() as file:  # not closed by its writer
        first, second = csv.DictReader(file)
    assert first[f"predicted.{NAMES[0]}"] == "0.7000"
    assert first[f"commanded.{NAMES[0]}"] == "0.4000"
    assert second["time_s"] == "0.40"
    assert second[f"commanded.{NAMES[0]}"] == ""
    assert log.reasons == {"dark": 1}
    draw(log.rows, tmp_path / "shadow.png")
    assert (tmp_path / "shadow.png").stat().st_size > 10_000


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AlohaError, match=r"actions.csv cannot be written .*--out"):
        ShadowLog(tmp_path / "file" / "actions.csv")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").symlink_to("/dev/full")
    with pytest.raises(AlohaError, match=r"actions.csv cannot be written \(No space left"):
        ShadowLog(tmp_path / "actions.csv")


def test_options_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    care = deploy.care_from(1.0, None, None, None)
    with pytest.raises(ConfigError, match="add --shadow"):
        deploy.deploy("sim", "demo", seed=0, task=None, run_dir=tmp_path, care=care, scripted=True)
    dark = deploy.care_from(1.0, None, None, None, shadow=True)
    with pytest.raises(ConfigError, match="--takeover takes over"):
        deploy.deploy("sim", "demo", seed=0, task=None, run_dir=tmp_path, care=dark, takeover=True)
    slow = deploy.care_from(0.5, None, None, None, shadow=True)
    with pytest.raises(ConfigError, match="leave out --speed"):
        deploy.deploy("sim", "demo", seed=0, task=None, run_dir=tmp_path, care=slow)
    with pytest.raises(ConfigError, match="real one: use --teleop"):
        job_of(config.load("aloha"), False, True)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"speed": 2.0}, "--speed 2.0: "),
        ({"speed": float("nan")}, "--speed nan: "),
        ({"max_duration_s": 0.0}, "--max-duration 0.0: "),
        ({"velocity": 0.0}, "--velocity 0.0: "),
    ],
)
def test_wishes_that_cannot_be_are_named_by_option(wishes: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        deploy.care_from(**{"speed": 1.0, "max_duration_s": None, "limits": None, "velocity": None, **wishes})


def test_a_file_of_limits_and_options_only_ever_tighten(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("velocity_rad_s: 1.0\nlead_rad: 0.2\n")
    care = deploy.care_from(0.5, 30, path, 1.5)
    assert care.limits == TighterLimits(velocity_rad_s=1.0, lead_rad=0.2)
    rig = deploy.with_care(config.load("sim"), care)
    again = deploy.with_care(rig, deploy.care_from(1.0, 60, None, 2.0))
    assert again.deploy == rig.deploy == care
    with pytest.raises(ConfigError, match=r"velocity_rad_s 3 is looser than the rig's 2\.5"):
        deploy.with_care(rig, deploy.care_from(1.0, None, None, 3.0))
    path.write_text("velocity: 1.0\n")
    with pytest.raises(ConfigError, match=r"limits.yaml:1: unknown key 'velocity'"):
        config.load_limits(path)
    with pytest.raises(ConfigError, match="do not exist"):
        config.load_limits(tmp_path / "none.yaml")
