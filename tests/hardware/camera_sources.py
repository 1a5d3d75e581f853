"""Things that stand where a camera would: an MJPEG server, a video file, RealSense recordings and software devices, and
a simulated world.

All but the last show `picture(n)`: a red frame with a bar that moves, so that no two frames are alike.
"""

import math
import socketserver
import threading
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer

import av
import cv2
import numpy as np
import pyrealsense2 as rs

from aloha_runtime import messages
from aloha_runtime.bus import Bus
from aloha_runtime.realtime import WallClock
from aloha_runtime.sim.world import World

HEIGHT, WIDTH, FPS = 48, 64, 30


def picture(number):
    """(48, 64, 3) uint8 RGB: red, with a grey bar whose place tells `number` modulo 64."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (200, 20, 20)
    image[:, number % WIDTH] = 128
    return image


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class MjpegServer:
    """HTTP multipart MJPEG on 127.0.0.1, paced. `playing` cleared: connections stay and say nothing. `frozen`: the same
    picture again and again."""

    def __init__(self):
        self.playing, self.frozen = threading.Event(), False
        self.playing.set()
        self._stopping = threading.Event()
        self._server = None
        self._port = 0
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._port}/stream.mjpg"

    def start(self):
        self._stopping.clear()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner._stream(self)

            def log_message(self, *arguments):
                """Nothing on the test's output."""

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self):
        """End all connections and refuse new ones, as an unplugged camera does."""
        if self._server is not None:
            self._stopping.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def _stream(self, handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        number = 0
        while not self._stopping.is_set():
            if self.playing.is_set():
                _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    handler.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
                except OSError:
                    return
                number += 0 if self.frozen else 1
            time.sleep(1 / FPS)


def write_video(path, frames, size=(HEIGHT, WIDTH)):
    """An H.264 file with pictures 0 to `frames` - 1, scaled to `size` (height, width)."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for number in range(frames):
            image = cv2.resize(picture(number), size[::-1], interpolation=cv2.INTER_NEAREST)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


class SoftwareRealSense:
    """librealsense's software device with one colour stream, fed from a thread or frame by frame."""

    def __init__(self):
        self.device = rs.software_device()
        self.sensor = self.device.add_sensor("Stereo Module")
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt = rs.stream.color, 0, 1, rs.format.rgb8
        stream.width, stream.height, stream.fps, stream.bpp = WIDTH, HEIGHT, FPS, 3
        intrinsics = rs.intrinsics()
        intrinsics.width, intrinsics.height = WIDTH, HEIGHT
        stream.intrinsics = intrinsics
        self.profile = self.sensor.add_video_stream(stream).as_video_stream_profile()
        self._number = 0
        self._thread = None

    def add_exposure(self):
        """The exposure controls of a D405."""
        self.sensor.add_option(rs.option.enable_auto_exposure, rs.option_range(0, 1, 1, 1), True)
        self.sensor.add_option(rs.option.exposure, rs.option_range(1, 165000, 33000, 1), True)

    def feed(self, image=None, skip=0, exposed_us_before=None, number=None):
        """One frame on the device's own clock, after `skip` frames that got lost."""
        self._number = number if number is not None else self._number + 1 + skip
        frame = rs.software_video_frame()
        frame.pixels = picture(self._number) if image is None else image
        frame.stride, frame.bpp = WIDTH * 3, 3
        frame.timestamp, frame.domain = 1e3 * self._number / FPS, rs.timestamp_domain.hardware_clock
        frame.frame_number, frame.profile = self._number, self.profile
        self.sensor.set_metadata(rs.frame_metadata_value.actual_fps, FPS * 1000)
        if exposed_us_before is not None:
            self.sensor.set_metadata(rs.frame_metadata_value.frame_timestamp, 1_000_000)
            self.sensor.set_metadata(rs.frame_metadata_value.sensor_timestamp, 1_000_000 - exposed_us_before)
        self.sensor.on_video_frame(frame)

    def start(self):
        """Feed at 30 fps."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def _run(self):
        while not self._stopping.wait(1 / FPS):
            self.feed()


def record_realsense(path, frames):
    """A recording (`.db3`) of a software device, made by librealsense's recorder."""
    source = SoftwareRealSense()
    recorder = rs.recorder(str(path), source.device)
    sensor = recorder.query_sensors()[0]
    sensor.open(sensor.get_stream_profiles()[0])
    sensor.start(rs.frame_queue(1))
    for _ in range(frames):
        source.feed()
        time.sleep(1 / FPS)  # the recorder stamps frames with their arrival, and playback keeps that time
    sensor.stop()
    sensor.close()


class MovingWorld:
    """A simulated world as the bus shows it: states in which the left arm moves a little from one to the next."""

    def __init__(self, run_dir):
        self._bus = Bus(run_dir, WallClock())
        self._states = self._bus.publisher(messages.SIM_STATE)
        self._qpos = World("transfer_cube").snapshot().qpos
        self._stopping = threading.Event()
        self._thread = None
        self._count = 0

    def start(self):
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self):
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def close(self):
        self.stop()
        self._bus.close()

    def _run(self):
        while not self._stopping.wait(0.01):
            self._count += 1
            qpos = self._qpos.copy()
            qpos[0] += 0.3 * math.sin(self._count / 10)
            state = {"task": "transfer_cube", "seed": 0, "environment_state": [], "stage": 0, "success": False}
            self._states.send(messages.SimState(stamp_ns=time.monotonic_ns(), qpos=qpos.tolist(), **state))
