"""The link over a bad network: what is asked again, what is dropped, and that it comes back by itself."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from remote_machines import DIGEST, STATE, Machine, echo, observation, until_answered

from aloha_runtime.errors import CheckpointError
from aloha_runtime.remote import frames, wire
from aloha_runtime.remote.link import PolicyLink
from aloha_runtime.remote.server import PolicyServer
from aloha_runtime.sim.network import BadNetwork


def opened(machine: Machine, network: BadNetwork) -> PolicyLink:
    link = machine.link(port=network.port)
    link.open(10)
    until_answered(link, 1)
    return link


def test_a_delay_shows_in_the_round_trips_and_answers_stay_those_of_their_questions(
    machine: Machine, network: BadNetwork
) -> None:
    link = opened(machine, network)
    network.delay_s, network.jitter_s = 0.03, 0.02
    for value in range(5):
        assert (link.predict(observation(value)) == value).all()  # type: ignore[union-attr]
    assert link.figures()["link_p99_ms"] >= 60  # twice the delay


def test_a_connection_that_is_cut_comes_back_by_itself(machine: Machine, network: BadNetwork) -> None:
    link = opened(machine, network)
    for value in (2, 3, 4):
        network.cut()
        until_answered(link, value)
    assert link.counts["connections"] == 4
    assert machine.server.counts["answered"] >= 4


def test_a_cut_in_the_middle_of_a_message_leaves_nothing_behind(machine: Machine, network: BadNetwork) -> None:
    link = opened(machine, network)
    before = machine.server.counts["answered"]
    network.cut_after = 1000  # a message has 2.4 kB
    assert link.predict(observation(2)) is None
    assert machine.server.counts["answered"] == before
    until_answered(link, 3)
    assert not machine.server.counts["not understood"]


def test_a_request_under_way_ends_when_its_connection_does(machine: Machine, network: BadNetwork) -> None:
    link = opened(machine, network)
    machine.pause()
    results: list[object] = []
    asking = threading.Thread(target=lambda: results.append(link.predict(observation(2))))
    asking.start()
    asking.join(0.2)
    assert asking.is_alive()
    network.cut()
    asking.join(2.5)  # sooner than it would have given up (3 s)
    assert results == [None]
    machine.running.set()
    until_answered(link, 3)


def test_a_half_open_connection_is_noticed_and_replaced(machine: Machine, network: BadNetwork) -> None:
    link = opened(machine, network)
    network.stalled = True  # nothing passes and nobody is told
    assert link.predict(observation(2)) is None
    network.cut()
    network.stalled = False
    until_answered(link, 3)


def test_a_server_that_starts_again_is_found_again(start: Callable[..., Machine]) -> None:
    machine = start()
    link = machine.link()
    link.open(10)
    machine.links.remove(link)
    _restart(machine)
    again = start(port=machine.port)
    again.links.append(link)
    assert until_answered(link, 2) > 0
    assert link.trouble == ""


def test_a_server_that_starts_again_with_another_checkpoint_is_not_followed(start: Callable[..., Machine]) -> None:
    machine = start()
    link = machine.link()
    link.open(10)
    machine.links.remove(link)
    _restart(machine)
    again = start(port=machine.port, digest="cd" * 32)
    again.links.append(link)
    with pytest.raises(CheckpointError, match=f"now serves checkpoint {'cd' * 6}, not {DIGEST[:12]}"):
        until_answered(link, 2)


def _restart(machine: Machine) -> None:
    """The server's process is gone."""
    machine.ended = True
    time.sleep(0.1)
    machine.server.close()
    machine.keeper.close()
    machine.context.term()


def test_closing_does_not_wait_for_an_answer(machine: Machine) -> None:
    link = machine.link()
    link.open(10)
    machine.pause()
    asking = threading.Thread(target=link.predict, args=(observation(),))
    asking.start()
    link.stop()
    asking.join(2.5)  # an answer would be waited for 3 s
    assert not asking.is_alive()


def test_a_robot_that_does_not_wait_gets_the_answer_to_its_newest_question_only(start: Callable[..., Machine]) -> None:
    seen: list[float] = []

    def remember(asked: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(float(asked[STATE][0]))
        return echo(asked)

    machine = start(remember)
    link = machine.link()
    session = link.open(10).session
    numbers = iter(range(1, 1000))
    for _ in range(50):  # how many have arrived when the server looks is the network's business
        machine.pause()
        asked = [next(numbers) for _ in range(3)]
        for number in asked:
            link._mail.send([wire.encode(frames.pack(observation(number), session, number))])
        machine.running.set()
        answers: list[int] = []
        while not answers or answers[-1] != asked[-1]:
            assert link._mail.wait(10_000)
            for parts in link._mail.take():
                answer = wire.from_server(parts[0].bytes)
                assert isinstance(answer, wire.Chunk)
                answers.append(answer.number)
        assert seen[-len(answers) :] == answers == sorted(set(answers))
        if machine.server.counts["replaced"] >= 2:
            break
    counts = machine.server.counts
    assert counts["replaced"] >= 2
    assert counts["answered"] + counts["replaced"] == next(numbers) - 1


def test_a_robot_takes_only_the_answer_to_its_own_question(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    link = machine.link()
    session = link.open(10).session
    real = PolicyServer._send

    def lying(server: PolicyServer, peer: bytes, message: wire.Card | wire.Chunk | wire.Refusal) -> None:
        if isinstance(message, wire.Chunk):
            wrong = np.full((5, 14), 99, "<f4").tobytes()
            for session_said, number in ((bytes(16), message.number), (session, message.number + 1)):
                real(server, peer, wire.Chunk(session_said, number, 1, 5, wrong))
        real(server, peer, message)

    monkeypatch.setattr(PolicyServer, "_send", lying)
    for value in range(3):
        chunk = link.predict(observation(value))
        assert chunk is not None
        assert (chunk == value).all()
    assert link.counts["stale"] == 6
