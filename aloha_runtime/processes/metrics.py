"""metrics: what every process says of itself, for Prometheus (/metrics) and for programs that ask whether the rig is
well (/healthz, /readyz). Plain HTTP on the loopback address alone; it reads, and takes no orders.
"""

import http.server
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus

from aloha_runtime import messages
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import MS, Health, Mode
from aloha_runtime.processes.table import LOOPBACK, every_process
from aloha_runtime.realtime import NS_PER_S, Pacer
from aloha_runtime.service import Service, run

PERIOD_NS = 200 * MS
"""As often as processes report."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' exposition format."""
REQUEST_TIMEOUT_S = 5.0
SUPERVISOR = "supervisor"


class MetricsLoop:
    """`turn` looks at everything once; `pages` are what it saw last, by path: (status, text)."""

    def __init__(self, service: Service) -> None:
        self.service = service
        bus = service.bus
        others = [name for name in every_process(service.rig) if name != service.name]
        self.health = {name: bus.subscribe(messages.health_topic(name)) for name in others}
        self.mode = bus.subscribe(messages.MODE)
        self.pages: dict[str, tuple[HTTPStatus, str]] = {}

    def turn(self, now_ns: int) -> None:
        reports = {name: report for name, subscriber in self.health.items() if (report := subscriber.latest())}
        heartbeat = self.mode.fresh(now_ns)
        mode = None if heartbeat is None else Mode(heartbeat.mode)
        lines = [*_of_processes(reports, now_ns), *_of_mode(mode)]
        alive = _stale(reports, now_ns, [SUPERVISOR])
        wrong = [*_stale(reports, now_ns, list(reports)), *_troubled(reports)]
        if mode in (None, Mode.FAULT):
            wrong.append("mode unknown" if heartbeat is None else f"fault: {heartbeat.cause}")
        self.pages = {
            "/metrics": (HTTPStatus.OK, "\n".join(lines) + "\n"),
            "/healthz": _verdict(alive),
            "/readyz": _verdict(list(dict.fromkeys([*alive, *wrong]))),
        }


def _of_processes(reports: dict[str, Health], now_ns: int) -> Iterator[str]:
    yield "# HELP aloha_process_ok 1 when the process says that all is well and was heard lately"
    yield "# TYPE aloha_process_ok gauge"
    for name, report in reports.items():
        good = report.ok and not _stale(reports, now_ns, [name])
        yield f'aloha_process_ok{{process="{name}"}} {int(good)}'
    yield "# HELP aloha_report_age_seconds age of its newest health report"
    yield "# TYPE aloha_report_age_seconds gauge"
    for name, report in reports.items():
        yield f'aloha_report_age_seconds{{process="{name}"}} {(now_ns - report.stamp_ns) / NS_PER_S:.3f}'
    figures = sorted({figure for report in reports.values() for figure in report.figures})
    for figure in figures:
        metric = f"aloha_{re.sub('[^a-zA-Z0-9_]', '_', figure)}"
        yield f"# TYPE {metric} untyped"
        for name, report in reports.items():
            if figure in report.figures:
                yield f'{metric}{{process="{name}"}} {float(report.figures[figure]):g}'


def _of_mode(mode: Mode | None) -> Iterator[str]:
    yield "# HELP aloha_mode 1 for the mode of the rig"
    yield "# TYPE aloha_mode gauge"
    for candidate in Mode:
        yield f'aloha_mode{{mode="{candidate}"}} {int(candidate is mode)}'


def _stale(reports: dict[str, Health], now_ns: int, names: list[str]) -> list[str]:
    """Those of `names` that have not been heard for longer than a health report may be old."""
    limit_ns = messages.health_topic(SUPERVISOR).max_age_ms * MS
    return [f"{name} is silent" for name in names if name not in reports or now_ns - reports[name].stamp_ns > limit_ns]


def _troubled(reports: dict[str, Health]) -> list[str]:
    return [f"{name}: {report.message or 'in trouble'}" for name, report in reports.items() if not report.ok]


def _verdict(reasons: list[str]) -> tuple[HTTPStatus, str]:
    if reasons:
        return HTTPStatus.SERVICE_UNAVAILABLE, "\n".join(reasons) + "\n"
    return HTTPStatus.OK, "ok\n"


def serve(loop: MetricsLoop, port: int) -> http.server.ThreadingHTTPServer:
    """Answer requests in threads of their own. Raises TransportError when the port is taken."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            status, text = loop.pages.get(self.path, (HTTPStatus.NOT_FOUND, "/metrics, /healthz or /readyz\n"))
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", TEXT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """A line a request would fill the journal."""

    try:
        server = http.server.ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as error:
        raise TransportError(
            f"port {port} of {LOOPBACK} cannot be taken ({error.strerror}): choose another `metrics_port` for the rig"
        ) from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server


def main(service: Service) -> None:
    port = service.rig.metrics_port
    assert port is not None, "the table starts this process only where the rig has a metrics_port"
    loop = MetricsLoop(service)
    server = serve(loop, port)
    pacer = Pacer(service.clock, PERIOD_NS)
    try:
        while not service.stopping:
            beat = pacer.wait()
            loop.turn(beat.deadline_ns + beat.lateness_ns)
            service.report()
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    run(main)
