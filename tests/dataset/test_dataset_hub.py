"""Push and pull through the hub's own client, against a hub of our own on loopback."""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from aloha_runtime.data import Dataset, DatasetWriter
from aloha_runtime.data.check import check

COMMIT = "1234567890" * 4
NAME = "user/cups"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "dataset"
    with DatasetWriter.create(path, vectors={"action": ["x"]}, cameras={"cam": (16, 16)}) as writer:
        for index in range(5):
            writer.add_frame(
                {"action": np.array([index / 4]), "observation.images.cam": np.zeros((16, 16, 3), np.uint8)}
            )
        writer.save_episode("stack", report={"outcome": "success"})
    (path / "notes.txt").write_text("mine")
    (path / "data/chunk-000/file-009.parquet").write_bytes(b"nobody counts this")
    return path


class Hub(ThreadingHTTPServer):
    """Keeps what was committed, and hands it out. `asked`: what was called, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        here = f"http://127.0.0.1:{self.server.server_port}/datasets/{NAME}"
        answers = {
            "/api/repos/create": {"url": here, "name": NAME},
            f"/api/datasets/{NAME}/preupload/main": {},
            f"/api/datasets/{NAME}/commit/main": {"commitUrl": f"{here}/commit/{COMMIT}", "commitOid": COMMIT},
            f"/api/datasets/{NAME}/tag/main": {},
        }
        if path not in answers:
            self.answer(404, b"", **{"X-Error-Code": "RepoNotFound"})
            return
        if "preupload" in path:
            files = json.loads(body)["files"]
            answers[path] = {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            }
        if "commit" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.answer(200, json.dumps(answers[path]).encode())

    def do_GET(self) -> None:
        path, files = self.path.split("?")[0], self.server.files
        name = path.rpartition(f"/resolve/{COMMIT}/")[2]
        if path in (
            f"/api/datasets/{NAME}",
            f"/api/datasets/{NAME}/revision/main",
            f"/api/datasets/{NAME}/revision/{COMMIT}",
        ):
            siblings = [{"rfilename": file} for file in files]
            self.answer(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/api/datasets/{NAME}/tree/"):
            tree = [
                {"type": "file", "path": f, "size": len(c), "oid": hashlib.sha256(c).hexdigest()[:40]}
                for f, c in files.items()
            ]
            self.answer(200, json.dumps(tree).encode())
        elif path.startswith(f"/datasets/{NAME}/resolve/") and name in files:
            self.server.asked.append(name)
            self.answer(200, files[name], ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"')
        else:
            self.answer(404, b"", **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815 — the server's name

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(content)

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()


def aloha(endpoint: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, since the hub's client reads its environment once."""
    client = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "aloha_runtime.cli", "dataset", *words]
    return subprocess.run(command, env={**os.environ, **client}, capture_output=True, text=True, check=False)


def test_a_dataset_goes_there_and_comes_back(hub: Hub, made: Path, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    pushed = aloha(endpoint, tmp_path, "push", str(made), NAME)
    assert pushed.returncode == 0, pushed.stderr
    assert "notes.txt" not in hub.files
    assert "data/chunk-000/file-009.parquet" not in hub.files
    assert "meta/aloha/episode_000000.json" in hub.files
    assert hub.asked[-1].endswith("/tag/main")
    hub.files |= {"train.py": b"print('no')", "README.md": b"# cups"}
    pulled = aloha(endpoint, tmp_path, "pull", NAME, str(tmp_path / "back"))
    assert pulled.returncode == 0, pulled.stderr
    assert check(tmp_path / "back", decode=True) == []
    assert np.array_equal(Dataset(tmp_path / "back").vectors("action"), Dataset(made).vectors("action"))
    assert not [path for path in (tmp_path / "back").rglob("*") if path.suffix in (".py", ".md", ".lock")]
    again = aloha(endpoint, tmp_path, "pull", NAME, str(tmp_path / "back"))
    assert again.returncode == 5
    assert "already exists" in again.stderr


def test_what_cannot_be_done_is_one_message(made: Path, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    pushed = aloha(nowhere, tmp_path, "push", str(made), NAME)
    assert pushed.returncode == 5
    assert "was not uploaded as 'user/cups'" in pushed.stderr
    assert "Traceback" not in pushed.stderr
    pulled = aloha(nowhere, tmp_path, "pull", NAME, str(tmp_path / "back"))
    assert "'user/cups' cannot be had from the hub" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert not (tmp_path / "back").exists()
    assert "write user/dataset" in aloha(nowhere, tmp_path, "pull", "cups", str(tmp_path / "back")).stderr
