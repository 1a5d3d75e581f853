"""Controls of a USB camera, against a stand-in for the kernel that speaks its structures."""

import errno
import struct

import pytest

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware import v4l2_controls
from aloha_runtime.hardware.v4l2_controls import apply

AUTO_WB, WB, GAIN, LINE, DYNAMIC = 0x0098090C, 0x0098091A, 0x00980913, 0x00980918, 0x009A0903
"""linux/v4l2-controls.h."""
G_CTRL, S_CTRL, QUERYCTRL = 0xC008561B, 0xC008561C, 0xC0445624
"""linux/videodev2.h, as the kernel's own headers expand them on 64 bits."""
C922 = {AUTO_WB: (0, 1, 1), WB: (2000, 6500, 1), GAIN: (0, 255, 1), LINE: (0, 2, 1), DYNAMIC: (0, 1, 1)}
"""A Logitech C922: least, greatest, step."""


class Kernel:
    """VIDIOC_QUERYCTRL, VIDIOC_G_CTRL and VIDIOC_S_CTRL of one device."""

    def __init__(self):
        self.controls, self.values, self.order = dict(C922), dict.fromkeys(C922, 1), []
        self.kept: dict[int, int] = {}
        self.flags = 0

    def ioctl(self, device, request, data):
        (number,) = struct.unpack_from("=I", data)
        if number not in self.controls:
            raise OSError(errno.EINVAL, "Invalid argument")
        if request == QUERYCTRL:
            assert len(data) == 68
            struct.pack_into("=iiii", data, 40, *self.controls[number], 0)
            struct.pack_into("=I", data, 56, self.flags)
        elif request == G_CTRL:
            struct.pack_into("=i", data, 4, self.kept.get(number, self.values[number]))
        else:
            assert request == S_CTRL
            self.order.append(number)
            (self.values[number],) = struct.unpack_from("=i", data, 4)
            if number in self.kept:
                raise OSError(errno.EBUSY, "busy")


@pytest.fixture
def kernel(monkeypatch):
    made = Kernel()
    monkeypatch.setattr(v4l2_controls.fcntl, "ioctl", made.ioctl)
    return made


ALL = {"gain": 20, "white_balance_k": 4600, "power_line_hz": 50, "dynamic_framerate": False, "exposure": 9, "focus": 5}


def test_what_is_stated_is_set_and_read_back(kernel):
    found = apply("cam_high", "/dev/null", ALL)
    assert found == {
        "gain": 20,
        "white_balance_automatic": 0,
        "white_balance_temperature": 4600,
        "power_line_frequency": 1,
        "exposure_dynamic_framerate": 0,
    }
    assert kernel.values == {AUTO_WB: 0, WB: 4600, GAIN: 20, LINE: 1, DYNAMIC: 0}
    assert kernel.order.index(AUTO_WB) < kernel.order.index(WB), "a temperature is taken when the automatic is off"


def test_nothing_stated_leaves_white_balance_automatic_and_the_rest_alone(kernel):
    kernel.values[AUTO_WB] = 0
    assert apply("cam_high", "/dev/null", {}) == {}
    assert kernel.order == [AUTO_WB]
    assert kernel.values[AUTO_WB] == 1
    del kernel.controls[AUTO_WB]
    assert apply("cam_high", "/dev/null", {}) == {}


@pytest.mark.parametrize(("key", "number"), [("gain", GAIN), ("white_balance_k", WB), ("dynamic_framerate", DYNAMIC)])
def test_a_control_that_is_not_there_is_named(kernel, key, number):
    del kernel.controls[number]
    with pytest.raises(
        HardwareError, match=rf"cam_high: /dev/null has no control \w+, which `{key}` would set\. .*leave"
    ):
        apply("cam_high", "/dev/null", {key: ALL[key]})


def test_a_control_that_is_switched_off_is_not_there(kernel):
    kernel.flags = 1
    with pytest.raises(HardwareError, match="has no control gain"):
        apply("cam_high", "/dev/null", {"gain": 3})


def test_a_value_that_the_camera_does_not_take_is_named_with_the_one_read_back(kernel):
    with pytest.raises(HardwareError, match="takes gain from 0 to 255 in steps of 1, not 300"):
        apply("cam_high", "/dev/null", {"gain": 300})
    kernel.kept = {LINE: 2}
    with pytest.raises(HardwareError, match=r"did not take power_line_frequency 1 .*; it reads back 2 \(EBUSY\)"):
        apply("cam_high", "/dev/null", {"power_line_hz": 50})
