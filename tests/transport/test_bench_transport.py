"""The transport benchmark measures what it says, in both ways; its figures are judged by people, not here."""

import pytest

from aloha_runtime.commands import bench_transport
from aloha_runtime.commands.bench_transport import Sums
from aloha_runtime.commands.bench_transport_worker import FPS


@pytest.mark.parametrize("way", bench_transport.WAYS)
def test_frames_arrive_in_both_ways(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_transport, "WARM_UP_NS", 300_000_000)
    sums = Sums()
    bench_transport._measure(way, 1, 0.75, sums)
    assert 0 < sums.sent <= 4 * FPS
    assert 0 < sums.received <= sums.sent
    assert min(sums.latencies_us) > 0
    assert min(sums.writer_cpu_ns, sums.readers_cpu_ns) > 0


def test_cpu_of_a_frame_is_that_of_one_which_every_reader_got() -> None:
    half_lost = Sums(sent=100, received=100, writer_cpu_ns=100_000_000, readers_cpu_ns=50_000_000)
    assert half_lost.cpu_ms_per_frame(2) == 2.0
    assert half_lost.lost_percent(2) == 50.0


def test_a_figure_is_held_against_its_share_of_the_peers() -> None:
    assert bench_transport._row("x", "us", 1.0, 3.0, 1 / 3).met is True
    assert bench_transport._row("x", "us", 1.1, 3.0, 1 / 3).met is False
    assert bench_transport._row("x", "us", 1.1, 3.0, None).goal is None


def test_virtual_time_goes_round() -> None:
    assert bench_transport._grants_per_s(0.2) > 0
