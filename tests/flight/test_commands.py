"""`aloha log`: what it says, draws and converts; and what it says of a log that is none."""

import subprocess
import sys
from pathlib import Path

import cv2
import made_logs
import numpy as np
import pytest
from typer.testing import CliRunner

from aloha_runtime import cli
from aloha_runtime.errors import LogError
from aloha_runtime.flight_log import story
from aloha_runtime.flight_log.reader import FlightLog, find

NAME = "2026-11-26_21-55-03_hold_policy-has-been-silent.mcap"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs")
    made_logs.make(path / NAME)
    (path / "2026-11-26_21-00-00_stop_damaged.mcap").write_bytes((path / NAME).read_bytes()[:5000])
    (path / "foreign.mcap").write_bytes(b"hello")
    return path


def aloha(*words: str | Path) -> str:
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_list_says_why_each_was_written_and_what_cannot_be_read(folder: Path) -> None:
    lines = aloha("log", "list", "--folder", folder).splitlines()
    (mine,) = [line for line in lines if line.startswith("2026-11-26_21-55-03")]
    assert mine.split()[1:5] == ["hold", "policy", "6", "s"]
    assert "policy has been silent for 512 ms" in mine
    assert sum("unreadable" in line for line in lines) == 2
    assert "no logs in" in aloha("log", "list", "--folder", folder / "empty")


@pytest.mark.parametrize(
    ("hole", "everybody", "likely"),
    [((3.9, 4.04), True, True), ((3.9, 4.04), False, False), ((2.0, 2.3), True, False), ((4.0, 4.0), True, False)],
    ids=["all at once", "one alone", "long before", "none"],
)
def test_a_computer_that_stood_still_is_the_likely_cause(
    tmp_path: Path, hole: tuple[float, float], everybody: bool, likely: bool
) -> None:
    made_logs.make(tmp_path / NAME, hole=hole, everybody=everybody)
    said = aloha("log", "show", "last", "--folder", tmp_path)
    told = [line for line in said.splitlines() if line.startswith("likely cause: ")]
    assert len(told) == likely
    assert all("this computer stood still for 14" in line and "(0.1" in line for line in told), told


def test_show_tells_the_story_and_the_joints(folder: Path) -> None:
    said = aloha("log", "show", "21-55-03", "--folder", folder)
    assert "HOLD" in said
    assert "also: policy died" in said
    assert "3 messages never reached the recorder" in said
    assert "the clock of the machine was set by +3600.0 s" in said
    told = [line for line in said.splitlines() if " s  " in line]
    assert [line.split()[0] for line in told] == sorted((line.split()[0] for line in told), key=float)
    assert any("/followers" in line and "nothing for 305 ms" in line for line in told)
    assert any(line.strip().startswith("+0.940 s") and line.endswith("policy             died") for line in told)
    assert "last action of policy: tick 199, 80 ms before; not a number: left_waist" in said
    assert not any("/action_policy" in line for line in told), "no gap: the mode had ended"
    elbow = next(line for line in said.splitlines() if line.startswith("left_elbow"))
    assert len(elbow.split()) == 7


def test_which_joint_was_held_off_is_known(folder: Path) -> None:
    with FlightLog(folder / NAME) as log:
        track = story.Track(log, made_logs.messages.FOLLOWERS, None, None)
    assert np.argwhere(track.held_off).tolist() == [[700 - 60, 4]]  # 60 cycles fell into the hole
    assert np.isnan(track.target[-1]).all()


def test_plot_draws_the_arms_around_the_event(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "log.png"
    assert str(out) in aloha("log", "plot", "21-55-03", "--folder", folder, "--out", out)
    picture = cv2.imread(str(out))
    assert picture is not None
    blue = (picture[..., 0] > 200) & (picture[..., 2] < 80)
    assert blue.sum() > 1000, "positions are drawn"
    with pytest.raises(LogError, match="nothing of the leaders"):
        aloha("log", "plot", "21-55-03", "--folder", folder, "--leaders")


def test_rerun_reads_what_open_writes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "log.rrd"
    aloha("log", "open", "21-55-03", "--folder", folder, "--no-view", "--out", out)
    command = [sys.executable, "-m", "rerun", "rrd"]
    verified = subprocess.run([*command, "verify", out], capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr
    listed = subprocess.run([*command, "print", out], capture_output=True, text=True, check=False).stdout
    wanted = ("/followers/left_elbow/goal", "/action_policy/right_gripper", "/log", "/thumbnail/cam_high")
    for entity in (*wanted, "/health/policy/inference_ms"):
        assert entity in listed.replace("\\", ""), entity


def test_a_log_is_found_by_part_of_its_name(folder: Path, tmp_path: Path) -> None:
    assert find(folder, "21-55").name == NAME
    assert find(folder, str(folder / NAME)) == folder / NAME
    with pytest.raises(LogError, match="2 logs are named '2026'"):
        find(folder, "2026")
    with pytest.raises(LogError, match=r"no log is named 'x'.*foreign"):
        find(folder, "x")
    with pytest.raises(LogError, match="no logs in"):
        find(tmp_path, "last")


@pytest.mark.parametrize("name", ["2026-11-26_21-00-00_stop_damaged.mcap", "foreign.mcap"])
def test_a_damaged_log_is_named(folder: Path, name: str) -> None:
    with pytest.raises(LogError, match=name):
        FlightLog(folder / name)


def test_a_damaged_message_section_is_named_where_it_is_read(folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / NAME).read_bytes())
    at = data.index(b"\x28\xb5\x2f\xfd")  # the first compressed chunk
    data[at + 200 : at + 260] = bytes(60)
    (tmp_path / "a.mcap").write_bytes(data)
    with FlightLog(tmp_path / "a.mcap") as log, pytest.raises(LogError, match=r"a\.mcap is damaged"):
        list(log.raw())
