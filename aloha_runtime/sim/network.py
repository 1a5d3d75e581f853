"""A bad network in user space: a TCP proxy that delays, throttles, stalls and cuts what passes through it."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

CHUNK = 16 << 10
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: close with RST, as a machine that was switched off and on answers


class BadNetwork:
    """A context: `port` on the loopback address leads to `target` there. Qualities may be set at any time; they hold
    for bytes that come from then on."""

    def __init__(self, target: int) -> None:
        self.delay_s = 0.0
        """Each way."""
        self.jitter_s = 0.0
        """Added to the delay, evenly from 0 on; bytes keep their order, as TCP sees to."""
        self.bytes_s: float | None = None
        """Throughput of each way of each connection."""
        self.stalled = False
        """Nothing passes, either way, and nobody is told: half-open connections."""
        self.refuses = False
        """New connections are reset at once."""
        self.cut_after: int | None = None
        """Connections are reset when so many more bytes went towards the target: in the middle of a message."""
        self.accepted = 0
        self.passed = bytearray()
        """What went towards the target on the first connection, for who wants to say it again."""
        self._target = target
        self._random = random.Random(0)  # noqa: S311 (delays, no secrets)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection that there is."""
        self._run(self._cut())

    def _run(self, job: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=10)

    async def _cut(self) -> None:
        for writer in list(self._open):
            self._reset(writer)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        with contextlib.suppress(OSError):
            found = writer.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            self._reset(writer)
            return
        first = self.accepted == 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._reset(writer)
            return
        both = (writer, far_writer)
        self._open.update(both)
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, self._towards(first, both)),
                self._carry(far_reader, writer, lambda _: None),
            )
        finally:
            for end in both:
                self._reset(end)

    def _towards(self, first: bool, both: tuple[asyncio.StreamWriter, ...]) -> Callable[[bytes], None]:
        def look(data: bytes) -> None:
            if first:
                self.passed += data
            if self.cut_after is not None:
                self.cut_after -= len(data)
                if self.cut_after <= 0:
                    self.cut_after = None
                    for end in both:
                        self._reset(end)

        return look

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None]
    ) -> None:
        """One way of one connection; its end on one side ends both ways."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=4096)
        writing = asyncio.create_task(self._write(waiting, writer, look))
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                due = self._loop.time() + self.delay_s + self._random.uniform(0, self.jitter_s)
                await waiting.put((due, data))
        if not self.stalled:
            writer.transport.abort()
        writing.cancel()

    async def _write(
        self, waiting: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, look: Callable[[bytes], None]
    ) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                while self.stalled:
                    await asyncio.sleep(0.01)
                if self.bytes_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_s)
                look(data)
                writer.write(data)
                await writer.drain()
