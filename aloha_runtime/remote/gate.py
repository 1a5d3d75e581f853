"""Who is let in: the CURVE sockets of both sides, and the ZAP handler that answers for the server's.

CURVE alone encrypts and lets anybody in. `ZAP_ENFORCE_DOMAIN` turns that round: while nobody answers for a socket
(https://rfc.zeromq.org/spec/27/), nobody is let in.
"""

import logging
import threading
from collections import Counter

import zmq

from aloha_runtime.errors import AlohaError, TransportError
from aloha_runtime.remote.keys import Keys, to_z85

DOMAIN = b"aloha"
ZAP = "inproc://zeromq.zap.01"
OUTGOING = 64
"""Messages that wait for one peer. One request is outstanding by design, but libzmq returns the room of what was sent
late, and a full outgoing queue loses messages (with room for 4, about one answer in 70 that follow each other at once).
What comes in has no limit here: a `Mailbox` reads it always and keeps the newest."""
HANDSHAKE_MS = 3000
"""Whoever has not proved its key by then is disconnected."""
HEARTBEAT_MS, DEAD_MS = 500, 2000
"""Pings on a silent connection, and silence after which it counts as dead: half-open ones end by this."""
RECONNECT_MS, RECONNECT_MAX_MS = 20, 500
BACKLOG = 16
_log = logging.getLogger("keys")


class Gatekeeper:
    """Answers for every CURVE socket of one context: a key of the allow-list is let in, nothing else is.

    The list is read again for each handshake, so that `aloha keys allow` works at once. A context: close it last.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", keys: Keys) -> None:
        """Raises ConfigError when the allow-list is missing, empty, wrong or open to others."""
        keys.allowed()
        self._keys = keys
        self.counts: Counter[str] = Counter()
        """Handshakes: `let in`, `unknown key`, `no key`, `not understood`."""
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            if self._socket.poll(100):
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        self._socket.close(0)

    def _answer(self, parts: list[bytes]) -> list[bytes]:
        """ZAP 1.0: version, request, domain, address, identity, mechanism, credentials."""
        if len(parts) < 6 or parts[0] != b"1.0" or parts[2] != DOMAIN:
            return self._say(parts, "not understood", "")
        if parts[5] != b"CURVE" or len(parts) != 7 or len(parts[6]) != 32:
            return self._say(parts, "no key", "")
        key = parts[6].hex()
        try:
            names = {peer.key: peer.name for peer in self._keys.allowed()}
        except (AlohaError, OSError) as error:
            _log.error("nobody is let in: %s", error)
            names = {}
        if key not in names and self.counts["unknown key"] < 20:  # a flood must not fill the journal
            _log.warning("%s is not let in: key %s is not allowed here", parts[3].decode(errors="replace"), key)
        return self._say(parts, "let in" if key in names else "unknown key", names.get(key, ""))

    def _say(self, parts: list[bytes], verdict: str, name: str) -> list[bytes]:
        self.counts[verdict] += 1
        request = parts[1] if len(parts) > 1 else b""
        status, text = (b"200", b"OK") if name else (b"400", b"key not allowed")
        return [b"1.0", request, status, text, name.encode(), b""]

    def close(self) -> None:
        """From now on nobody is let in."""
        self._end.set()
        self._thread.join(timeout=5)


def listen(
    context: "zmq.Context[zmq.Socket[bytes]]", keys: Keys, endpoint: str, max_bytes: int
) -> tuple["zmq.Socket[bytes]", Gatekeeper]:
    """The server's socket (ROUTER), bound. Raises ConfigError without keys and allow-list, TransportError for an
    address that cannot be taken."""
    private, gatekeeper = keys.private(), Gatekeeper(context, keys)
    socket = context.socket(zmq.ROUTER)
    _limit(socket, max_bytes)
    socket.curve_server = True
    socket.curve_secretkey = private
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an answer that cannot be sent is counted, not lost in silence
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        gatekeeper.close()
        socket.close(0)
        raise TransportError(f"cannot listen at {endpoint} ({error.strerror}): choose another --bind") from None
    return socket, gatekeeper


def connect(
    context: "zmq.Context[zmq.Socket[bytes]]", keys: Keys, endpoint: str, server_key: str, max_bytes: int
) -> "zmq.Socket[bytes]":
    """The robot PC's socket (DEALER) to the one server with that key (hex); no other can answer."""
    private = keys.private()
    socket = context.socket(zmq.DEALER)
    _limit(socket, max_bytes)
    socket.curve_secretkey = private
    socket.curve_publickey = zmq.curve_public(private)
    socket.curve_serverkey = to_z85(server_key)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a connection that is not there: it would be old by then
    socket.setsockopt(zmq.IPV6, int("[" in endpoint))
    socket.connect(endpoint)
    return socket


def _limit(socket: "zmq.Socket[bytes]", max_bytes: int) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.SNDHWM, OUTGOING)
    socket.setsockopt(zmq.RCVHWM, 0)  # a limit would stop the reading of a connection, which can end the process
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD_MS)
