"""Device time to monotonic time, and frozen pictures."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.hardware.base import CameraFrame
from aloha_runtime.hardware.frame_stream import DeviceClock, FrozenWatch
from aloha_runtime.processes import camera

PERIOD_NS = 16_666_667
delays_ns = st.lists(st.integers(0, 50_000_000), min_size=100, max_size=300)


@settings(deadline=None, max_examples=40)
@given(delays_ns, st.integers(-(10**15), 10**15), st.floats(-50e-6, 50e-6))
def test_stamps_follow_the_device_not_the_load(delays, offset, drift):
    """Whatever each transfer takes beyond a minimum of 2 ms, a stamp is at most the least delay of the frames so far
    (and what the drift of the crystals allows) after the exposure, and never before it less that drift."""
    clock, shortest = DeviceClock(), 10**9
    previous = arrival = 10**15
    for number, extra in enumerate(delays):
        exposed = 10**15 + number * PERIOD_NS
        device = int((exposed - 10**15) * (1 + drift)) + 10**15 + offset
        shortest = min(shortest, extra)
        arrival = max(exposed + 2_000_000 + extra, arrival + 1)  # frames arrive in order
        stamp = clock.stamp_ns(device, arrival)
        assert previous < stamp <= arrival
        previous = stamp
        drifted = 150e-6 * number * PERIOD_NS + 1000
        if number and arrival - exposed == 2_000_000 + extra:
            assert exposed - drifted <= stamp
        if extra == shortest:
            assert stamp <= exposed + 2_000_000 + shortest + drifted or stamp == previous


def test_jitter_of_arrival_does_not_reach_the_stamps():
    """Once a frame came without delay, stamps are one period apart to the drift allowance, however late they come."""
    clock = DeviceClock()
    rng = np.random.default_rng(0)
    stamps = []
    for number in range(300):
        late = 0 if number == 0 else int(rng.integers(0, 30_000_000))
        stamps.append(clock.stamp_ns(number * PERIOD_NS, 10**12 + number * PERIOD_NS + 5_000_000 + late))
    steps = np.diff(stamps)
    assert np.abs(steps - PERIOD_NS).max() <= PERIOD_NS * DeviceClock.DRIFT + 2
    total_drift = 300 * PERIOD_NS * DeviceClock.DRIFT
    assert 0 <= stamps[-1] - (10**12 + 299 * PERIOD_NS + 5_000_000) <= total_drift


def test_restarted_device_clock_starts_the_mapping_over():
    clock = DeviceClock()
    assert clock.stamp_ns(5_000_000_000, 100_000_000_000) == 100_000_000_000
    assert clock.stamp_ns(5_020_000_000, 100_030_000_000) == 100_020_000_000 + 2000  # 20 ms at 100 ppm
    assert clock.stamp_ns(1_000_000, 101_000_000_000) == 101_000_000_000, "back to zero"
    assert clock.stamp_ns(60_000_000_000, 101_020_000_000) == 101_020_000_000, "a jump ahead"


def test_frozen_watch():
    watch = FrozenWatch()
    rng = np.random.default_rng(0)
    live = [rng.integers(0, 256, (480, 640, 3), np.uint8) for _ in range(3)]
    for image in live:
        watch.look(image)
    assert watch.identical == 0
    for _ in range(4):
        watch.look(live[-1].copy())
    assert watch.identical == 4
    watch.look(live[0])
    assert watch.identical == 0


class Shown:
    """A camera that shows what it is told, and ends the process after the last picture."""

    def __init__(self, service, pictures):
        self.service, self.pictures = service, pictures
        self.watch, self.count = FrozenWatch(), 0

    @property
    def identical_frames(self):
        return self.watch.identical

    def read(self, timeout_s):
        image = self.pictures[self.count]
        self.count += 1
        self.service.stopping = self.count == len(self.pictures)
        self.watch.look(image)
        return CameraFrame(self.count * PERIOD_NS, image, self.count)


def test_a_frozen_picture_is_not_passed_on_and_the_report_says_so():
    rng = np.random.default_rng(0)
    live = [rng.integers(0, 256, (32, 48, 3), np.uint8) for _ in range(5)]
    said = []
    service = SimpleNamespace(
        stopping=False,
        clock=SimpleNamespace(now_ns=lambda: 10**9),
        report=lambda figures, ok, message: said.append((ok, message, figures()["frozen"])),
    )
    passed = []
    publisher = SimpleNamespace(send=lambda image, stamp_ns: passed.append(stamp_ns // PERIOD_NS))
    pictures = [*live[:3], *[live[3].copy() for _ in range(30)], live[4]]
    camera.pass_on(service, Shown(service, pictures), publisher)
    assert passed == [*range(1, 14), 34], "ten equal ones are a camera that hangs"
    assert [ok for ok, _, _ in said].count(False) == 20
    assert "the same picture 29 times in a row" in said[-2][1]
    assert said[-1][2] == 20
