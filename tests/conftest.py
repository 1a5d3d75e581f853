"""Where the files of tests go."""

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
"""For scripts/mutants.py: that a test fails is enough, nobody reads the smallest example."""


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Logs of the flight recorders that tests start go where the tests' other files go, never to the user's own."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shorter than pytest's own, which is named after the test: sockets lie in it, whose paths may have 107 bytes."""
    return tmp_path_factory.mktemp("t")
