"""Policies by name: paths first, then the hub, of which only data files are taken. A hub of our own on loopback."""

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

import pytest
import small_policy as small
import torch

from aloha_runtime.act import ACTPolicy, hub
from aloha_runtime.errors import CheckpointError

COMMIT = "1234567890" * 4


def test_paths_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner = tmp_path / "outputs/act/checkpoints/000010/pretrained_model"
    ACTPolicy(small.config(), small.stats()).save_pretrained(inner)
    (tmp_path / "outputs/act/checkpoints/last").symlink_to("000010")
    for name in ("last", "last/pretrained_model", "000010"):
        assert hub.find(f"outputs/act/checkpoints/{name}").resolve() == inner
        ACTPolicy.from_pretrained(tmp_path / "outputs/act/checkpoints" / name)
    with pytest.raises(CheckpointError, match=r"did you mean outputs/act/checkpoints/\w+/pretrained_model\?"):
        ACTPolicy.from_pretrained("outputs/act")
    with pytest.raises(CheckpointError, match=r"checkpoint outputs/other does not exist"):
        ACTPolicy.from_pretrained("outputs/other")  # outputs is a folder here: nobody is asked for a user of that name


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the model on the hub holds: a policy, and files that must stay where they are."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    ACTPolicy(small.config(), small.stats()).save_pretrained(folder)
    data = {path.name: path.read_bytes() for path in folder.iterdir()}
    return data | {
        "pytorch_model.bin": b"x",
        "stats.pkl": b"x",
        "act.py": b"x",
        "README.md": b"x",
        "sub/config.json": b"{}",
    }


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A hub that knows user/model; its address, and the files it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            name = path.rpartition(f"/resolve/{COMMIT}/")[2]
            if path in (f"/api/models/user/model/revision/{word}" for word in ("main", "v1", COMMIT)):
                siblings = [{"rfilename": file} for file in files]
                self.answer(200, json.dumps({"id": "user/model", "sha": COMMIT, "siblings": siblings}).encode())
            elif path == f"/api/models/user/model/tree/{COMMIT}":
                tree = [
                    {
                        "type": "file",
                        "path": file,
                        "size": len(content),
                        "oid": hashlib.sha256(content).hexdigest()[:40],
                    }
                    for file, content in files.items()
                ]
                self.answer(200, json.dumps(tree).encode())
            elif path.startswith("/user/model/resolve/") and name in files:
                asked.append(name)
                self.answer(200, files[name], ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"')
            else:
                self.answer(
                    404, b"", **{"X-Error-Code": "RepoNotFound" if "/user/model" not in path else "RevisionNotFound"}
                )

        do_HEAD = do_GET  # noqa: N815 - the server's name

        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                with contextlib.suppress(BrokenPipeError):
                    self.wfile.write(content)

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}", asked
        made.shutdown()


FIND = """
import sys
from aloha_runtime.act import hub
from aloha_runtime.errors import CheckpointError
try:
    print(hub.find("user/" + sys.argv[1], sys.argv[2] or None))
except CheckpointError as error:
    print("refused:", error)
"""


def find(endpoint: str, home: Path, model: str = "model", revision: str = "", **environment: str) -> str:
    """`hub.find` in a process of its own, since the hub's client reads its environment once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    command = [sys.executable, "-c", FIND, model, revision]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=True).stdout.strip()


def test_model_of_the_hub_is_fetched_once_and_kept(
    server: tuple[str, list[str]], files: dict[str, bytes], tmp_path: Path
) -> None:
    endpoint, asked = server
    directory = Path(find(endpoint, tmp_path, revision="v1"))
    data = {name for name in files if name.endswith((".json", ".safetensors")) and "/" not in name}
    assert {path.name for path in directory.iterdir()} == data == set(asked)
    ACTPolicy.from_pretrained(directory)

    offline = find("http://127.0.0.1:9", tmp_path, revision="v1", HF_HUB_OFFLINE="1")
    assert offline == str(directory)


@pytest.mark.parametrize(
    ("model", "revision", "offline", "reason"),
    [
        ("other", "", "0", "it has no such model, or only for those who log in"),
        ("model", "v2", "0", "the model has no such revision"),
        ("model", "", "1", "no network, and not downloaded before"),
    ],
    ids=["unknown model", "unknown revision", "offline"],
)
def test_what_cannot_be_had_is_one_message(
    model: str, revision: str, offline: str, reason: str, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    said = find(server[0], tmp_path, model, revision, HF_HUB_OFFLINE=offline)
    at = f" at revision '{revision}'" if revision else ""
    assert said.startswith(f"refused: policy 'user/{model}'{at}: there is no such directory here, and it cannot be had")
    assert f"from the hub ({reason}); give the path of a policy directory" in said
    assert "\n" not in said


def test_no_network_is_one_message(tmp_path: Path) -> None:
    said = find("http://127.0.0.1:9", tmp_path)
    assert said.startswith(
        "refused: policy 'user/model': there is no such directory here, and it cannot be had from the hub (no network, "
    )
    assert "\n" not in said
