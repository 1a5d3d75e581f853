"""The page of a dataset: files that a browser can play, numbers that are the dataset's."""

import json
import queue
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from aloha_runtime.commands.dataset_rrd import rrd
from aloha_runtime.commands.dataset_view import view
from aloha_runtime.data import Dataset, DatasetWriter, files, reports
from aloha_runtime.data.episode_store import pretty_json
from aloha_runtime.data.selection import select
from aloha_runtime.data.video_cut import packets
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import NAMES, START_POSE, pose_vector


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of two cameras; in the second a picture was repeated."""
    path = tmp_path_factory.mktemp("view") / "two <cameras>"
    vectors = {"observation.state": NAMES, "action": NAMES, "flags": ["repeated_a", "repeated_b"]}
    scalars = {"intervention": "bool"}
    with DatasetWriter.create(path, vectors=vectors, cameras=dict.fromkeys("ab", (48, 64)), scalars=scalars) as writer:
        for episode in range(2):
            for index in range(40):
                pose = pose_vector(START_POSE, 0.5) + 0.01 * index
                flags = np.array([0.0, float(episode == 1 and index in (3, 4))])
                images = {f"observation.images.{name}": np.full((48, 64, 3), 5 * index, np.uint8) for name in "ab"}
                led = {"intervention": np.array([episode == 1 and index in (7, 8, 9)])}
                writer.add_frame({"observation.state": pose, "action": pose + 0.1, "flags": flags, **images, **led})
            writer.save_episode("<b>wave</b>")
    report = pretty_json({"outcome": "failure", "ended": "failure", "flags": ["b: 2 of 40 frames repeated"]})
    files.publish_bytes(report, path / "report.json", reports.path(path, 1))
    return path


@pytest.fixture
def shared_sample() -> Path:
    """The dataset that LeRobot 0.6.1 wrote: three episodes in one file, AV1."""
    return Path(__file__).parents[1] / "data/lerobot_dataset_v3/dataset"


def numbers(page: Path, episode: int) -> dict:
    text = (page.parent / "episodes" / f"{episode}.js").read_text()
    return json.loads(re.fullmatch(r"show\((.*)\)\n", text)[1])


def test_the_page_holds_the_numbers_and_videos_of_every_episode(dataset: Path, tmp_path: Path) -> None:
    page = view(dataset, [], tmp_path / "page")
    found = numbers(page, 1)
    action = Dataset(dataset).vectors("action")[40:80]
    assert np.allclose(np.array(found["curves"]["action"]).T, action, atol=1e-4)
    assert found["joints"] == list(NAMES)
    assert found["flags"] == {"repeated_b": [3, 4], "intervention": [7, 8, 9]}
    assert {packets(page.parent / video, 50).frames for video in found["videos"].values()} == {40}
    text = page.read_text()
    assert "&lt;b&gt;wave&lt;/b&gt;" in text
    assert "<b>wave" not in text
    assert 'class="failure"' in text
    assert "2 of 40 frames repeated" in text
    assert not re.search(r"https?://", text), "nothing is fetched from anywhere"


def test_one_episode_and_a_bad_index(dataset: Path, tmp_path: Path) -> None:
    page = view(dataset, ["1"], tmp_path / "page")
    assert [file.name for file in (page.parent / "episodes").iterdir()] == ["1.js"]
    with pytest.raises(DatasetError, match=r"no episode 0-2: the dataset has 0 to 1"):
        view(dataset, ["0-2"], tmp_path / "page")
    assert select(["3", "7-9,1"], 10) == [1, 3, 7, 8, 9]
    with pytest.raises(DatasetError, match="'x' names no episode"):
        select(["x"], 10)


def test_a_folder_with_other_files_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    """Above all a dataset, which has a folder of videos as well."""
    mine = shutil.copytree(dataset, tmp_path / "mine")
    before = sorted(mine.rglob("*"))
    with pytest.raises(DatasetError, match="holds other files"):
        view(dataset, [], mine)
    assert sorted(mine.rglob("*")) == before
    view(dataset, ["0"], tmp_path / "page")
    view(dataset, ["1"], tmp_path / "page")  # a page is replaced
    (tmp_path / "page/videos/notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"holds other files \(notes.txt\)"):
        view(dataset, ["0"], tmp_path / "page")
    assert (tmp_path / "page/videos/notes.txt").read_text() == "mine"


def test_episodes_that_share_a_file_of_another_codec(shared_sample: Path, tmp_path: Path) -> None:
    """LeRobot's AV1: each episode becomes a film of its own that every browser plays."""
    page = view(shared_sample, ["2"], tmp_path / "page")
    found = numbers(page, 2)
    film = page.parent / found["videos"]["cam_high"]
    assert packets(film, 50).frames == found["frames"]
    with av.open(film) as opened:
        assert opened.streams.video[0].codec_context.name == "h264"


def test_a_recording_for_rerun_is_sound(dataset: Path, tmp_path: Path) -> None:
    rrd(dataset, 1, tmp_path / "episode.rrd")
    command = [sys.executable, "-m", "rerun", "rrd"]
    verified = subprocess.run(
        [*command, "verify", tmp_path / "episode.rrd"], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr
    listed = subprocess.run([*command, "print", tmp_path / "episode.rrd"], capture_output=True, text=True, check=False)
    for entity in ("/cameras/a", "/cameras/b", "/action/right_gripper", "/flags/repeated_b"):
        assert entity in listed.stdout.replace("\\", ""), entity


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PLAYED = """<script>
const start = setInterval(() => {
  if (!episode || videos.some(video => video.readyState < 3)) return;
  clearInterval(start);
  play();
}, 100);
setInterval(() => {
  if (playing || frame === 0) return;
  const seen = videos.map(video => video.readyState + "@" + video.currentTime.toFixed(2));
  new Image().src = "http://127.0.0.1:$port/" + seen.join("/") + "/" + frame;
}, 200);
</script></body>"""
"""Plays, and tells when it has come to the end."""


class Ear(BaseHTTPRequestHandler):
    """Hears what the page tells."""

    def do_GET(self) -> None:
        self.server.told.put(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt install chromium")
def test_a_browser_plays_it_from_disk(dataset: Path, tmp_path: Path) -> None:
    page = view(dataset, [], tmp_path / "page")
    server = HTTPServer(("127.0.0.1", 0), Ear)
    server.told = queue.Queue()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page.write_text(page.read_text().replace("</body>", PLAYED.replace("$port", str(server.server_port))))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    browser = subprocess.Popen([*command, "--remote-debugging-port=0", page.as_uri()], stderr=subprocess.DEVNULL)
    try:
        first, second, frame = server.told.get(timeout=100).strip("/").split("/")
    finally:
        browser.kill()
        browser.wait()
        server.shutdown()
        server.server_close()
    assert frame == "39", "the cursor of the curves came to the end"
    for video in (first, second):
        ready, seconds = video.split("@")
        assert int(ready) >= 2, "it shows a picture"
        assert float(seconds) == pytest.approx(39.5 / 50, abs=0.05)
