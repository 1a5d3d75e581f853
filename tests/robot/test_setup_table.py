"""The table step of `aloha setup`: where arms and table are, and which answers cannot be."""

from pathlib import Path

import pytest

from aloha_runtime import config
from aloha_runtime.commands import setup, setup_table
from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.errors import ConfigError
from aloha_runtime.robot import ROLES, SIDES, Role

ARMS: dict[str, Role] = {f"{role}_{side}": role for role in ROLES for side in SIDES}
"""Of a rig with leaders and followers."""


def test_where_arms_and_table_are_is_asked_for_and_switches_the_guard_on(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    out = tmp_path / "mobile.yaml"
    answers = {
        "table.follower_left": "0, 0.25, 0",
        "table.follower_right": "0 -0.25 0",
        "table.height": "none",
        "table.leader_left": "-0.9 0.3 0",
        "table.leader_right": "-0.9 -0.3 0",
        "table.leader_height": "-0.05",
    }
    assert config.load("aloha").guard is None
    setup.setup("aloha", out, ["table"], Person(answers, yes=True), tmp_path / "run")
    guard = config.load(str(out)).guard
    assert guard is not None
    assert guard.bases() == {"left": (0.0, 0.25, 0.0), "right": (0.0, -0.25, 0.0)}
    assert guard.bases("leader") == {"left": (-0.9, 0.3, 0.0), "right": (-0.9, -0.3, 0.0)}
    assert (guard.table("follower"), guard.table("leader")) == (None, -0.05)

    # Asked again, what was answered is the default.
    setup.setup(str(out), out, ["table"], Person(yes=True), tmp_path / "run")
    assert config.load(str(out)).guard == guard


def test_the_published_places_are_the_default_and_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    person = Person(yes=True)
    found = setup_table.ask_for_table({}, ARMS, config.load("aloha2"), person)
    guard = GuardConfig.model_validate(found)
    assert guard.bases()["left"] == GuardConfig().left_base
    assert guard.bases()["right"] == pytest.approx(GuardConfig().right_base, abs=1e-5)
    assert (guard.table_m, guard.leader_table_m) == (-0.021, 0.0)
    said = capsys.readouterr().out
    assert "0.938 m apart" in said
    assert "MuJoCo Menagerie" in said


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("follower_left", "here"),
        ("follower_left", "0 0"),
        ("follower_left", "0 0 0 0"),
        ("follower_left", "0 nan 0"),
        ("follower_left", "unknown"),
        ("height", "inf"),
        ("height", ""),
        ("leader_left", "somewhere"),
    ],
)
def test_an_answer_that_is_no_place_is_refused_with_what_is_wanted(name: str, answer: str) -> None:
    with pytest.raises(ConfigError, match=rf"table\.{name}: .* is not .*metres"):
        setup_table.ask_for_table({}, ARMS, config.load("aloha"), Person({f"table.{name}": answer}, yes=True))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"follower_left": "-469 500 0"}, r"table\.follower_left: -469 m .* not millimetres\?\): measure"),
        ({"leader_right": "0 3.1 0"}, r"table\.leader_right: 3\.1 m .* not millimetres\?\): measure"),
        ({"height": "-21"}, r"table\.height: -21 m .* not millimetres\?\): measure"),
        ({"follower_right": "0.031 0.5 180"}, r"would be 6 mm apart \(the guard keeps 20 mm\): measure x and y"),
        ({"follower_right": "-0.469 0.5 0"}, "would be inside each other"),
    ],
)
def test_places_where_no_arms_can_stand_are_refused(answers: dict[str, str], said: str) -> None:
    person = Person({f"table.{name}": answer for name, answer in answers.items()}, yes=True)
    with pytest.raises(ConfigError, match=said):
        setup_table.ask_for_table({}, ARMS, config.load("aloha"), person)


def test_a_person_is_asked_again_after_a_wrong_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["-469 500 0", "-0.469 0.5 0", "-0.4 0.5 0", "-0.469 0.5 0", "0.469 0.5 180", "21", "none"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(typed))
    arms: dict[str, Role] = {name: role for name, role in ARMS.items() if role == "follower"}
    found = setup_table.ask_for_table({}, arms, config.load("aloha"), Person())
    assert found == {"left_base": [-0.469, 0.5, 0.0], "right_base": [0.469, 0.5, 3.14159], "table_m": None}
    said = capsys.readouterr().out
    assert said.count("not millimetres?") == 2
    assert said.count("would be inside each other") == 1


def test_a_leader_whose_place_is_known_alone_is_planned_for_by_its_table() -> None:
    person = Person({"table.leader_left": "0 0 0"}, yes=True)
    found = setup_table.ask_for_table({}, ARMS, config.load("aloha"), person)
    assert GuardConfig.model_validate(found).bases("leader") == {}
