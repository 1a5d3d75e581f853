"""What is installed is what is pinned, and the audit of it finds what it is told."""

import importlib.metadata
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)


def pins() -> dict[str, str]:
    return {name: version for name, version, _ in PIN.findall((ROOT / "requirements.txt").read_text())}


def test_every_requirement_is_one_version_with_hashes() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert PIN.sub("", text).strip().splitlines() == [line for line in text.splitlines() if line.startswith("#")]


def test_what_is_installed_is_what_is_pinned() -> None:
    found = {}
    for name, version in pins().items():
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        if there.partition("+")[0] != version:
            found[name] = f"{there}, pinned is {version}"
    assert not found
    assert importlib.metadata.version("pyzmq") == pins()["pyzmq"]


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_audit_names_what_it_found_and_what_it_could_not_look_up(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    advisory = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}
    accepted = {"id": "PYSEC-2", "aliases": ["CVE-2"], "fix_versions": []}
    report = {
        "dependencies": [
            {"name": "good", "version": "1.0", "vulns": []},
            {"name": "bad", "version": "2.0", "vulns": [advisory, accepted]},
            {"name": "odd", "skip_reason": "not found"},
        ]
    }
    monkeypatch.setitem(audit.ACCEPTED, "CVE-2", "only in a part that is not used")
    assert audit.judge(report) == (["bad 2.0: PYSEC-1, mended in 2.1"], ["not found"])


@pytest.mark.parametrize(("required", "code"), [("", 0), ("required", 1)])
def test_no_database_is_never_taken_for_no_vulnerability(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: str, code: int
) -> None:
    monkeypatch.setattr(audit, "ask", lambda _: (None, "no network"))
    monkeypatch.setenv("AUDIT", required)
    assert audit.main() == code
    assert "NOT DONE: pypi: no network; osv: no network" in capsys.readouterr().out
