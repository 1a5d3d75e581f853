"""The force of the grippers: what is measured, and the page that it goes to."""

from pathlib import Path

import pytest

from aloha_runtime.commands import bench_grip
from aloha_runtime.commands.doc_section import write_section
from aloha_runtime.robot import KITS


@pytest.mark.parametrize("kit", KITS)
def test_a_squeezed_leader_gives_the_kits_current_on_any_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kit: str
) -> None:
    """As the original does; a leader that is just closed presses a thin object weakly, there as here."""
    monkeypatch.setattr(bench_grip, "KITS", {kit: KITS[kit]})
    monkeypatch.setattr(bench_grip, "OBJECTS_MM", (0.1, 30.0))
    page = tmp_path / "page.md"
    rows = {row.name.removeprefix(f"{kit}, "): row for row in bench_grip.run(page)}
    limit_ma = KITS[kit].gripper_current_ma
    for thickness in ("0.1 mm", "30 mm"):
        row = rows[f"{thickness}, squeezed"]
        assert row.value == pytest.approx(limit_ma, rel=0.01)
        assert row.met
    for row in rows.values():
        assert row.value == pytest.approx(row.peer, rel=0.05)
    assert rows["0.1 mm, just closed"].value < 0.1 * limit_ma
    assert page.read_text().count(f"| {kit} |") == 2


def test_a_section_takes_the_place_of_the_one_before_and_leaves_the_others(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    write_section(page, "Page", "Force", "weak")
    assert page.read_text() == "# Page\n\n## Force\n\nweak\n"
    page.write_text("# Page\n\nWhat it is about.\n\n## Force\n\nweak\n\n## Speed\n\nfast\n")
    write_section(page, "Page", "Force", "strong")
    assert page.read_text() == "# Page\n\nWhat it is about.\n\n## Force\n\nstrong\n\n## Speed\n\nfast\n"
    write_section(page, "Page", "Colour", "red")
    assert page.read_text().endswith("## Speed\n\nfast\n\n## Colour\n\nred\n")
