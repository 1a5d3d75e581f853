"""The report of a short made-up episode: complete, self-contained, and honest about failure."""

import io
import json
import re
from dataclasses import replace

import av
import pytest
from made_up import START_NS, demonstrated
from rich.console import Console

from aloha_runtime.commands import report, report_video
from aloha_runtime.commands.observe import Log
from aloha_runtime.messages import MS, Health

KEYS = {
    "success", "seed", "ticks", "ticks_on_time", "tick_lateness_p50_ms", "tick_lateness_p99_ms", "arms_hz",
    "latency_p50_ms", "latency_p99_ms", "frame_age_p50_ms", "policy",
}  # fmt: skip
IMAGES = ["observation.state", "observation.images.cam_high"]


@pytest.fixture(scope="module")
def short() -> Log:
    """A quarter of a second: nobody has touched the cube yet."""
    return demonstrated(ticks=12)


@pytest.fixture(scope="module")
def written(short: Log, tmp_path_factory: pytest.TempPathFactory) -> report.Written:
    named = replace(short, policy="<b>mine</b>")
    said = Health(stamp_ns=START_NS, process="arms@followers", pid=1, message="no real-time priority")
    named.messages["health.arms@followers"].append(said)
    return report.write(named, tmp_path_factory.mktemp("report"), IMAGES)


def test_json_has_every_promised_figure(written: report.Written) -> None:
    found = json.loads(written.json.read_text())
    assert found.keys() >= KEYS
    assert found["success"] is False
    assert found["seed"] == 7
    assert all(isinstance(found[key], (int, float)) for key in KEYS - {"policy", "success"})


def test_the_page_refers_to_nothing_outside_itself(written: report.Written) -> None:
    page = written.html.read_text()
    references = re.findall(r'(?:src|href|poster|action)\s*=\s*"([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)
    assert references
    assert all(target.startswith(("data:", "#")) for target in references)
    assert not re.search(r"https?:|@import|//cdn|<link", page)


def test_the_page_says_what_happened(written: report.Written) -> None:
    page = written.html.read_text()
    assert "not solved" in page
    assert "The cube was not handed over" in page
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    assert "<b>mine" not in page
    assert "no real-time priority" in page
    assert page.count('class="timed"') == 2
    assert all(
        f"{side} {joint}" in page for side in ("left", "right") for joint in ("waist", "wrist rotate", "gripper")
    )


def test_the_video_plays_in_a_browser(written: report.Written) -> None:
    with av.open(written.html.parent / "episode.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.width, stream.height) == (
            "h264",
            "yuv420p",
            1280,
            480,
        )
        assert sum(1 for _ in container.decode(stream)) == len(report_video.frames_at(demonstrated(ticks=12).sim, 25))


def test_frames_are_those_of_their_moments(short: Log) -> None:
    shown = report_video.frames_at(short.sim, 25)
    assert [state.stamp_ns - START_NS for state in shown] == [index * 40 * MS for index in range(len(shown))]
    assert report_video.frames_at([], 25) == []


def test_the_headline_tells_a_policy_that_is_told_from_one_that_sees() -> None:
    found = {"task": "transfer_cube", "success": True, "time_to_success_s": 4.0, "policy_inputs": "observation.state"}
    assert "simulator" not in report.headline_of(found)
    assert "from the simulator" in report.headline_of(found | {"policy_inputs": report.ENVIRONMENT_STATE})


def test_one_screen_of_text(written: report.Written) -> None:
    console = Console(file=io.StringIO(), width=100)
    report.print_summary(written, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "NOT SOLVED" in text
    assert "report.html" in text
    assert len(text.splitlines()) <= 32
