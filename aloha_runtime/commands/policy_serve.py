"""`aloha policy serve`: a checkpoint on a GPU machine, for robot PCs whose keys are allowed."""

import logging
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import zmq
from rich.console import Console

from aloha_runtime.config import policy_path
from aloha_runtime.remote import gate
from aloha_runtime.remote.address import bindable
from aloha_runtime.remote.keys import Keys, default_keys_dir
from aloha_runtime.remote.server import PolicyServer

TURN_MS = 200
"""So often a silent server looks whether it is to end."""
SAY_EVERY_S = 60.0


def serve(checkpoint: str, bind: str, keys_dir: Path | None, engine: str, device: str, threads: int) -> None:
    """Until Ctrl-C or SIGTERM. Keys and address are checked before the network is loaded."""
    endpoint, keys = bindable(bind), Keys(keys_dir or default_keys_dir())
    keys.private()
    peers = keys.allowed()
    from aloha_runtime.act import serving

    say = Console(highlight=False, soft_wrap=True).print
    path = policy_path(checkpoint)
    card = serving.served(path)
    say(f"loading {path}")
    config, running, chosen = serving.open_engine(path, engine, device, threads, say)
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s", level=logging.INFO)
    inputs = serving.inputs_of(config)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    ended: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ended.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    socket, gatekeeper = gate.listen(context, keys, endpoint, inputs.most_bytes)
    server = PolicyServer(socket, card, inputs, running.predict)
    say(f"serves {path} (checkpoint {card.digest[:12]}; {chosen}) at {endpoint} to {', '.join(p.name for p in peers)}")
    say(f"this machine's public key: {keys.public()}")
    next_s = time.monotonic() + SAY_EVERY_S
    try:
        while not ended:
            server.turn(TURN_MS)
            if time.monotonic() > next_s:
                next_s += SAY_EVERY_S
                say(
                    ", ".join(f"{name} {count}" for name, count in (server.counts + gatekeeper.counts).items())
                    or "idle"
                )
    finally:
        server.close()
        gatekeeper.close()
        context.term()
        running.close()
    say("ended")
