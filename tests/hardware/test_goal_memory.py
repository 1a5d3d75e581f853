"""The file of goals: found again by the next program, and no harm when somebody else damages it."""

import os
from pathlib import Path

import pytest

from aloha_runtime.hardware.goal_memory import GoalMemory

IDS = (1, 2, 3)
KNOWN = {1: 100, 3: -4096}


def goals(memory: GoalMemory) -> dict[int, int | None]:
    return {servo_id: memory.get(servo_id) for servo_id in IDS}


def test_the_next_program_finds_the_goals(tmp_path: Path) -> None:
    GoalMemory(IDS, tmp_path / "goals").keep(KNOWN)
    assert goals(GoalMemory(IDS, tmp_path / "goals")) == {1: 100, 2: None, 3: -4096}


def test_a_truncated_file_ends_nothing_and_is_whole_again_at_the_next_goal(tmp_path: Path) -> None:
    path = tmp_path / "goals"
    memory = GoalMemory(IDS, path)
    memory.note((1, 2, 3))
    os.truncate(path, 0)
    assert goals(memory) == {1: 1, 2: 2, 3: 3}
    memory.note((4, 5, 6))
    assert goals(GoalMemory(IDS, path)) == {1: 4, 2: 5, 3: 6}


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 11, b"x" * 13, b"x" * 100_000])
def test_a_file_of_another_size_knows_no_goals(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "goals").write_bytes(content)
    assert set(goals(GoalMemory(IDS, tmp_path / "goals")).values()) == {None}


def test_goals_of_another_size_are_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "goals").write_bytes(b"x" * 100)
    GoalMemory(IDS, tmp_path / "goals").keep(KNOWN)
    assert goals(GoalMemory(IDS, tmp_path / "goals")) == {1: 100, 2: None, 3: -4096}


def test_a_link_or_a_pipe_in_its_place_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"somebody's")
    (tmp_path / "link").symlink_to(other)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "missing/goals"):
        memory = GoalMemory(IDS, tmp_path / name)
        memory.keep(KNOWN)
        assert memory.get(1) == 100
    assert other.read_bytes() == b"somebody's"


def test_a_full_disk_costs_the_next_program_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory = GoalMemory(IDS, tmp_path / "goals")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    memory.keep(KNOWN)
    assert memory.get(3) == -4096
