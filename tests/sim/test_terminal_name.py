"""The name of an emulated arm's terminal takes the place of such a name alone."""

from pathlib import Path

import pytest

from aloha_runtime.errors import SimulationError
from aloha_runtime.sim.pty import Terminal


def test_a_file_or_a_link_of_somebody_else_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    notes, link = tmp_path / "ttyNotes", tmp_path / "ttyLink"
    notes.write_text("mine")
    link.symlink_to(notes)
    for name in (notes, link):
        with pytest.raises(SimulationError, match="is no terminal of an emulated arm"):
            Terminal(name).plug()
    assert notes.read_text() == "mine"
    assert link.is_symlink()


def test_the_name_of_a_dead_process_is_taken_over_and_goes_with_the_terminal(tmp_path: Path) -> None:
    name = tmp_path / "ttyDXL"
    name.symlink_to("/dev/pts/99999")
    terminal = Terminal(name)
    terminal.plug()
    assert str(name.readlink()) != "/dev/pts/99999"
    terminal.unplug()
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_put_in_its_place_meanwhile_stays(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "ttyDXL")
    terminal.plug()
    terminal.link.unlink()
    terminal.link.write_text("mine")
    terminal.unplug()
    assert terminal.link.read_text() == "mine"
