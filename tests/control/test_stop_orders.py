"""What the mode machine is told of a physical stop."""

import pytest

from aloha_runtime.control.events import BlockerChanged, HoldAsked
from aloha_runtime.control.stop_input import STOPPED, StopOrders
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.messages import Mode, Request

STOP = Request(verb="stop", sender="stop input")
READY, GONE = StopSeen(0, held=False, missing=""), StopSeen(0, held=False, missing="/dev/pedal is gone; plug it in")


@pytest.fixture
def orders() -> StopOrders:
    found = StopOrders("KEY_A of /dev/pedal")
    assert list(found.take(READY, Mode.IDLE)) == []
    return found


@pytest.mark.parametrize("mode", Mode)
def test_a_press_is_a_stop_in_every_mode_once(orders: StopOrders, mode: Mode) -> None:
    assert list(orders.take(StopSeen(1, held=False, missing=""), mode)) == [STOP]
    assert list(orders.take(StopSeen(1, held=False, missing=""), mode)) == []


@pytest.mark.parametrize("mode", Mode)
def test_while_it_is_held_arming_is_refused_and_what_moves_is_stopped(orders: StopOrders, mode: Mode) -> None:
    held = StopSeen(1, held=True, missing="")
    blocker = BlockerChanged("stop input", "KEY_A of /dev/pedal is pressed or its circuit is open; release it")
    assert list(orders.take(held, Mode.HOLD)) == [STOP, blocker]
    assert orders.trouble == f"stop input: {blocker.reason}"
    assert list(orders.take(held, mode)) == ([STOP] if mode in STOPPED else [])
    assert list(orders.take(StopSeen(1, held=False, missing=""), mode)) == [BlockerChanged("stop input", "")]
    assert orders.trouble == ""


def test_vanishing_is_a_hold_once_so_that_the_arms_can_still_be_parked(orders: StopOrders) -> None:
    assert list(orders.take(GONE, Mode.TELEOP)) == [
        HoldAsked("stop input: /dev/pedal is gone; plug it in"),
        BlockerChanged("stop input", "/dev/pedal is gone; plug it in"),
    ]
    assert list(orders.take(GONE, Mode.PARK)) == []
    later = StopSeen(0, held=False, missing="/dev/pedal does not exist")
    assert list(orders.take(later, Mode.PARK)) == [BlockerChanged("stop input", "/dev/pedal does not exist")]
    assert list(orders.take(READY, Mode.HOLD)) == [BlockerChanged("stop input", "")]
    assert HoldAsked("stop input: /dev/pedal is gone; plug it in") in list(orders.take(GONE, Mode.ARMED))


def test_missing_at_the_start_refuses_arming_and_holds_nobody() -> None:
    assert list(StopOrders("it").take(GONE, Mode.IDLE)) == [
        BlockerChanged("stop input", "/dev/pedal is gone; plug it in")
    ]
