"""The topic table and the messages on the wire."""

import msgspec
import pytest

from aloha_runtime import messages
from aloha_runtime.messages import Action, Mode


def test_each_topic_has_one_publisher_and_one_name() -> None:
    names = [topic.name for topic in messages.TOPICS]
    assert len(names) == len(set(names))
    assert all(topic.publisher and topic.max_age_ms * topic.rate_hz >= 1000 for topic in messages.TOPICS)


def test_every_topic_constant_is_in_the_table() -> None:
    constants = {value.name for value in vars(messages).values() if isinstance(value, messages.Topic)}
    assert constants == {topic.name for topic in messages.TOPICS}


def test_actions_come_from_a_topic_for_each_moving_mode() -> None:
    assert set(messages.ACTION_TOPIC) == set(messages.MOVING)


def test_round_trip() -> None:
    action = Action(stamp_ns=5, seq=2, tick=7, position=[0.5] * 14)
    assert messages.decode(messages.encode(action), Action) == action


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x80", messages.encode(Action(stamp_ns=1, tick=1, position=[]))[:-3]])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        messages.decode(data, Action)


def test_nan_survives_the_wire_so_that_the_gate_can_refuse_it() -> None:
    action = messages.decode(messages.encode(Action(stamp_ns=1, tick=1, position=[float("nan")] * 14)), Action)
    assert action.position[0] != action.position[0]


def test_mode_travels_as_its_word() -> None:
    assert b"hold" in messages.encode(messages.ModeHeartbeat(stamp_ns=1, mode=Mode.HOLD))


def test_how_long_each_word_counts() -> None:
    """What docs/safety.md promises; everything that judges freshness goes by these."""
    counts = {topic.name: topic.max_age_ms for topic in messages.TOPICS}
    assert counts == {
        "followers": 40,
        "leaders": 40,
        "action_teleop": 60,
        "action_policy": 60,
        "action_replay": 60,
        "shadow_policy": 60,
        "policy_tick": 60,
        "mode": 200,
        "guard": 100,
        "recorder": 500,
        "sim_reset": 200,
        "sim_state": 40,
    }
    assert messages.camera_topic("cam_high").max_age_ms == 100
    assert messages.health_topic("policy").max_age_ms == 1000


@pytest.mark.parametrize("field", ["verb", "argument", "sender"])
def test_no_request_makes_a_heartbeat_or_a_reply_too_long_to_be_sent(field: str) -> None:
    request = messages.Request(**{"verb": "stop", field: "x" * 1001})
    with pytest.raises(msgspec.ValidationError):
        messages.decode(messages.encode(request), messages.Request)


@pytest.mark.parametrize(
    "data", [b"\x81\xa1x" * 100_000, b"\x81\xa5cause\xa2\xff\xff", b"\x81\xa1x\xdd\xff\xff\xff\xff", b"\x91" * 100_000]
)
def test_what_is_nested_or_claims_much_is_not_understood_like_anything_else(data: bytes) -> None:
    for kind in (messages.ModeHeartbeat, messages.Health, messages.Request, messages.FrameInfo):
        with pytest.raises(msgspec.DecodeError):
            messages.decode(data, kind)
