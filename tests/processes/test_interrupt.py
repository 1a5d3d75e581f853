"""Ctrl-C, SIGTERM and SIGKILL of the `aloha` command leave no process, no shared memory and no socket.

A few moments of every phase; `soak_signals.py` tries many more, at random.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from soak_signals import Moment, play, small_rig

MOMENTS = {
    Moment("start-up", 0.0, signal.SIGTERM): (-signal.SIGTERM, 130),  # Python itself may still be starting
    Moment("start-up", 2.5, signal.SIGINT): (130,),
    Moment("start-up", 3.5, signal.SIGKILL): (-signal.SIGKILL,),
    Moment("arming", 0.3, signal.SIGTERM): (130,),
    Moment("teleop", 0.2, signal.SIGKILL): (-signal.SIGKILL,),
    Moment("parking", 0.2, signal.SIGINT, twice_s=0.05): (130,),
}
"""When which signal comes, and the exit codes that are right."""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Moment, tuple[int, str]]]:
    """Exit code of each round and what was left, two rounds at a time."""
    folder = tmp_path_factory.mktemp("interrupt")
    rig = small_rig(folder / "rig.yaml", "virtual", cameras=False)

    def run(moment: Moment) -> tuple[int, str]:
        return play(moment, rig, folder / f"{moment.phase}{moment.number}")

    with ThreadPoolExecutor(2) as pool:
        yield dict(zip(MOMENTS, pool.map(run, MOMENTS), strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment.phase} {moment.number.name}")
def test_nothing_is_left(ends: dict[Moment, tuple[int, str]], moment: Moment) -> None:
    code, wrong = ends[moment]
    assert wrong == ""
    assert code in MOMENTS[moment]
