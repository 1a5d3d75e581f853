"""The RealSense backend on librealsense's own objects: software devices and recordings."""

import time

import numpy as np
import pyrealsense2 as rs
import pytest
from camera_sources import FPS, HEIGHT, WIDTH, SoftwareRealSense, picture, record_realsense

from aloha_runtime.config import CameraConfig
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.realsense import RealSenseCamera

PERIOD_NS = 1_000_000_000 / FPS


def config(**entries):
    return CameraConfig(
        **{"type": "realsense", "serial": "42", "width": WIDTH, "height": HEIGHT, "fps": FPS, **entries}
    )


@pytest.fixture
def source():
    return SoftwareRealSense()


@pytest.fixture
def camera(source):
    """A connected camera that sees exactly the frames that a test feeds."""
    opened = RealSenseCamera("cam_high", config(), lambda: source.device)
    opened.connect()
    yield opened
    opened.disconnect()


def test_pixels_arrive_exactly(source, camera):
    for number in (1, 2):
        source.feed()
        assert np.array_equal(camera.read(5).image, picture(number))


def test_none_when_nothing_comes(camera):
    assert camera.read(0) is None
    assert camera.read(0.05) is None


def test_newest_frame_is_returned_and_lost_ones_are_counted(source, camera):
    source.feed()
    assert camera.read(5).sequence == 1
    source.feed(skip=3)
    assert camera.read(5).sequence == 5, "three frames never left the camera"
    for _ in range(3):
        source.feed()
    frame = camera.read(5)
    assert frame.sequence == 8, "two frames were overtaken before anybody asked"
    assert np.array_equal(frame.image, picture(8))
    assert camera.read(0.05) is None


def test_repeated_frame_numbers_are_one_frame(source, camera):
    """What a recording's playback does now and then."""
    source.feed()
    assert camera.read(5) is not None
    source.feed(number=1)
    assert camera.read(0.1) is None
    source.feed(number=2)
    assert camera.read(5).sequence == 2


def test_stamps_keep_the_cameras_own_time(source, camera):
    """A frame fetched long after it was taken is stamped with when it was taken."""
    source.feed()
    first = camera.read(5).stamp_ns
    time.sleep(5 * PERIOD_NS / 1e9)
    source.feed()
    second = camera.read(5).stamp_ns
    assert second - first == pytest.approx(PERIOD_NS, rel=0.001)


def test_exposure_metadata_moves_the_stamp_back(source, camera):
    source.feed(exposed_us_before=0)
    first = camera.read(5).stamp_ns
    time.sleep(5 * PERIOD_NS / 1e9)
    source.feed(exposed_us_before=8000)
    second = camera.read(5).stamp_ns
    assert second - first == pytest.approx(PERIOD_NS - 8_000_000, rel=0.001)


def test_frozen_picture_is_counted(source, camera):
    for _ in range(4):
        source.feed(image=picture(7))
        camera.read(5)
    assert camera.identical_frames == 3
    source.feed()
    camera.read(5)
    assert camera.identical_frames == 0


def test_controls_are_set_and_read_back(source):
    source.add_exposure()
    for option, most in ((rs.option.gain, 248), (rs.option.white_balance, 6500), (rs.option.power_line_frequency, 3)):
        source.sensor.add_option(option, rs.option_range(0, most, 1, 1), True)
    stated = {"exposure": 8000, "gain": 16, "white_balance_k": 4600, "power_line_hz": 60}
    camera = RealSenseCamera("cam_high", config(**stated), lambda: source.device)
    camera.connect()
    assert camera.controls == {"exposure": 8000, "gain": 16, "white_balance": 4600, "power_line_frequency": 2}
    assert {name: source.sensor.get_option(getattr(rs.option, name)) for name in camera.controls} == camera.controls
    camera.disconnect()
    with pytest.raises(HardwareError, match="gain 300 is outside what RealSense 42 takes, 0 to 248"):
        RealSenseCamera("cam_high", config(**stated | {"gain": 300}), lambda: source.device).connect()


@pytest.mark.parametrize("stated", [{"white_balance_k": 4600}, {"dynamic_framerate": False}, {"exposure": 8000}])
def test_a_control_that_the_camera_does_not_have_is_named(source, stated):
    (key,) = stated
    with pytest.raises(HardwareError, match=rf"cam_high: RealSense 42 has no control \w+, which `{key}` sets"):
        RealSenseCamera("cam_high", config(**stated), lambda: source.device).connect()


def test_exposure_is_set_and_automatic_switched_off(source):
    source.add_exposure()
    camera = RealSenseCamera("cam_high", config(exposure=8000), lambda: source.device)
    camera.connect()
    assert source.sensor.get_option(rs.option.exposure) == 8000
    assert source.sensor.get_option(rs.option.enable_auto_exposure) == 0
    camera.disconnect()
    camera = RealSenseCamera("cam_high", config(), lambda: source.device)
    camera.connect()
    assert source.sensor.get_option(rs.option.enable_auto_exposure) == 1
    camera.disconnect()


def test_impossible_exposure_is_refused(source):
    source.add_exposure()
    camera = RealSenseCamera("cam_high", config(exposure=200_000), lambda: source.device)
    with pytest.raises(HardwareError, match=r"cam_high: exposure 200000 .* 1 to 165000"):
        camera.connect()


@pytest.mark.parametrize("entries", [{"width": 640, "height": 480}, {"fps": 60}])
def test_missing_mode_names_those_there_are(source, entries):
    camera = RealSenseCamera("cam_high", config(**entries), lambda: source.device)
    with pytest.raises(HardwareError, match=r"cam_high: RealSense 42 gives no .*it offers 64x48 at 30"):
        camera.connect()


def test_camera_in_use(source, camera):
    second = RealSenseCamera("cam_low", config(), lambda: source.device)
    with pytest.raises(HardwareError, match=r"cam_low: RealSense 42 does not start.*realsense-viewer"):
        second.connect()
    source.feed()
    assert camera.read(5) is not None


def test_recording_gives_its_frames_in_order(tmp_path):
    path = tmp_path / "recording.db3"
    record_realsense(path, 10)
    camera = RealSenseCamera("cam_high", config(serial=str(path)))
    camera.connect()
    frames = [camera.read(5) for _ in range(4)]
    camera.disconnect()
    shown = [int(np.argmax((frame.image == 128).all(axis=(0, 2)))) for frame in frames]
    assert shown == sorted(set(shown))
    sequences = np.array([frame.sequence for frame in frames])
    assert np.array_equal(np.diff(sequences), np.diff(shown)), "sequence counts the recording's own frames"


def test_file_that_is_no_recording(tmp_path):
    path = tmp_path / "notes.db3"
    path.write_bytes(b"not a recording")
    with pytest.raises(HardwareError, match=r"cam_high: .*notes.db3"):
        RealSenseCamera("cam_high", config(serial=str(path))).connect()
