"""The files that `aloha bench faults` opens are alive: each runs its program in software that trusts it."""

import subprocess
import sys
from pathlib import Path

import pytest

from aloha_runtime.commands.faults.hostile import FILES

UNPICKLE = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
UNPICKLE_ZIP = "import pickle, sys, zipfile; pickle.loads(zipfile.ZipFile(sys.argv[1]).read('archive/data.pkl'))"
UNSAFE_YAML = "import sys, yaml; yaml.load(open(sys.argv[1]), Loader=yaml.UnsafeLoader)"


def naive(name: str) -> str:
    """The program that opens a file of that name as naive software would."""
    if name.startswith("rig file"):
        return UNSAFE_YAML
    return UNPICKLE_ZIP if name.endswith("zip") else UNPICKLE


@pytest.mark.parametrize("name", FILES)
def test_the_file_runs_its_program_where_it_is_trusted(name: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "hostile", tmp_path / "mark"
    path.write_bytes(FILES[name].make(str(mark)))
    subprocess.run([sys.executable, "-c", naive(name), str(path)], check=False, capture_output=True)
    assert mark.exists()
