"""A camera that can freeze, stall and be unplugged: an MJPEG stream on the loopback address for the real process."""

import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import cv2
import numpy as np

FPS = 30


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class Source:
    """A context. `frozen`: the same picture with new stamps; `stalled`: the connection stays and says nothing."""

    def __init__(self, height: int, width: int) -> None:
        self.frozen = self.stalled = False
        self._random = np.random.default_rng(0)
        self._size = (height, width, 3)
        self._port = 0
        self._server: _Server | None = None
        self._generation = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/stream.mjpg"

    def __enter__(self) -> "Source":
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def plug(self) -> None:
        """Serve, at the same address as before."""
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.stream(self)

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def unplug(self) -> None:
        """End every connection and refuse new ones."""
        if self._server is not None:
            self._generation += 1
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def stream(self, handler: BaseHTTPRequestHandler) -> None:
        """Pictures with a sensor's noise until the camera is unplugged."""
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        generation, jpeg = self._generation, b""
        while generation == self._generation:
            if not self.frozen or not jpeg:
                jpeg = cv2.imencode(".jpg", self._random.integers(0, 256, self._size, np.uint8))[1].tobytes()
            if not self.stalled:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    handler.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return
            time.sleep(1 / FPS)
