"""What the mode machine is told of a physical stop."""

import pytest

from aloha_runtime.control.events import BlockerChanged, HoldAsked
from aloha_runtime.control.stop_input import StopOrders
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.messages import POWERED, Mode, Request

NOW_NS = 1_000_000_000
STOP = Request(verb="stop", sender="stop input")
READY, GONE = StopSeen(0, held=False, missing=""), StopSeen(0, held=False, missing="/dev/pedal is gone; plug it in")


@pytest.fixture
def orders() -> StopOrders:
    found = StopOrders("KEY_A of /dev/pedal")
    assert list(found.take(READY, Mode.IDLE, NOW_NS)) == []
    return found


@pytest.mark.parametrize("mode", Mode)
def test_a_press_is_a_stop_in_every_mode_once(orders: StopOrders, mode: Mode) -> None:
    assert list(orders.take(StopSeen(1, held=False, missing=""), mode, NOW_NS)) == [STOP]
    assert list(orders.take(StopSeen(1, held=False, missing=""), mode, NOW_NS)) == []


@pytest.mark.parametrize("mode", Mode)
def test_while_it_is_held_arming_is_refused_and_what_moves_is_stopped(orders: StopOrders, mode: Mode) -> None:
    held = StopSeen(1, held=True, missing="")
    blocker = BlockerChanged("stop input", "KEY_A of /dev/pedal is pressed or its circuit is open; release it", NOW_NS)
    assert list(orders.take(held, Mode.HOLD, NOW_NS)) == [STOP, blocker]
    assert orders.trouble == f"stop input: {blocker.reason}"
    assert list(orders.take(held, mode, NOW_NS)) == ([STOP] if mode in POWERED else [])
    assert list(orders.take(StopSeen(1, held=False, missing=""), mode, NOW_NS)) == [
        BlockerChanged("stop input", "", NOW_NS)
    ]
    assert orders.trouble == ""


def test_vanishing_is_a_hold_once_so_that_the_arms_can_still_be_parked(orders: StopOrders) -> None:
    assert list(orders.take(GONE, Mode.TELEOP, NOW_NS)) == [
        HoldAsked("stop input: /dev/pedal is gone; plug it in", NOW_NS),
        BlockerChanged("stop input", "/dev/pedal is gone; plug it in", NOW_NS),
    ]
    assert list(orders.take(GONE, Mode.PARK, NOW_NS)) == []
    later = StopSeen(0, held=False, missing="/dev/pedal does not exist")
    assert list(orders.take(later, Mode.PARK, NOW_NS)) == [
        BlockerChanged("stop input", "/dev/pedal does not exist", NOW_NS)
    ]
    assert list(orders.take(READY, Mode.HOLD, NOW_NS)) == [BlockerChanged("stop input", "", NOW_NS)]
    assert HoldAsked("stop input: /dev/pedal is gone; plug it in", NOW_NS) in list(
        orders.take(GONE, Mode.ARMED, NOW_NS)
    )


def test_missing_at_the_start_refuses_arming_and_holds_nobody() -> None:
    assert list(StopOrders("it").take(GONE, Mode.IDLE, NOW_NS)) == [
        BlockerChanged("stop input", "/dev/pedal is gone; plug it in", NOW_NS)
    ]
