"""What is put into the ring is what the `mcap` package reads from the file; and the ring stays within its bounds."""

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import made_logs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader

from aloha_runtime import config, messages
from aloha_runtime.flight_log import channels, mcap_file
from aloha_runtime.flight_log.reader import FlightLog, decoded
from aloha_runtime.flight_log.ring import Ring
from aloha_runtime.messages import Action, ArmsState, Health
from aloha_runtime.processes.table import every_process

S = made_logs.S
KEPT = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 7]), st.integers(0, 20 * S), st.integers(0, 2**40), st.binary(max_size=40), st.booleans()
    )
)


@given(KEPT)
def test_every_message_comes_back_in_order_of_time(kept: list[tuple[int, int, int, bytes, bool]]) -> None:
    ring = Ring(100 * S, 1 << 30)
    for channel, stamp_ns, sequence, data, seal in kept:
        ring.add(channel, stamp_ns, sequence, data)
        if seal:
            ring.seal()
    ring.seal()
    file = io.BytesIO()
    mcap_file.write(file, made_logs.CHANNELS, ring.since(0), {"a": "b"})
    wanted = sorted((stamp, channel, sequence & 0xFFFFFFFF, data) for channel, stamp, sequence, data, _ in kept)
    file.seek(0)
    reader = make_reader(file, validate_crcs=True)
    found = [(m.log_time, c.id, m.sequence, m.data) for _, c, m in reader.iter_messages()]
    assert [item[0] for item in found] == [item[0] for item in wanted]
    assert sorted(found) == wanted
    summary = reader.get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count == len(kept)
    file.seek(0)
    records = list(StreamReader(file, validate_crcs=True).records)  # from its beginning, without the summary
    assert sum(type(record).__name__ == "Message" for record in records) == len(kept)


def test_a_span_is_found_through_the_index(tmp_path: Path) -> None:
    path = made_logs.make(tmp_path / "log.mcap")
    with path.open("rb") as file:
        reader = make_reader(file)
        start, end = made_logs.WALL + 3 * S, made_logs.WALL + int(3.5 * S)
        found = [m.log_time for _, _, m in reader.iter_messages("/followers", starting_at=start, ending_before=end)]
        assert found == list(range(start, end, made_logs.CYCLE))
        (attached,) = reader.iter_attachments()
        assert (attached.name, attached.data) == ("rig.yaml", b"name: sim\n")


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(1, 30), st.integers(300, 20_000))
def test_the_ring_keeps_the_newest_within_age_and_bytes(sizes: list[int], seconds: int, most: int) -> None:
    ring = Ring(seconds * S, most)
    for second, size in enumerate(sizes):
        ring.add(1, second * S, second, bytes(size))
        ring.seal()
    chunks, last = ring.since(0), len(sizes) - 1
    assert chunks[-1].end_ns == last * S
    assert ring.size == sum(chunk.size for chunk in chunks)
    assert ring.size <= most or len(chunks) == 1
    assert all(chunk.end_ns >= (last - seconds) * S for chunk in chunks)
    whole = sum(chunk.size for chunk in chunks) + chunks[0].size <= most
    if whole and len(chunks) < len(sizes):  # what went was too old, not too much
        assert chunks[0].end_ns == (last - seconds) * S


def schemas() -> dict[str, Any]:
    rig = config.load("sim")
    topics = [*messages.TOPICS, *(messages.health_topic(name) for name in every_process(rig))]
    found = channels.Channels([*topics, messages.camera_topic("cam_high")], ["cam_high"])
    return {schema.name: json.loads(schema.data) for schema in found.schemas}


def test_schemas_are_plain_and_true_of_the_messages() -> None:
    known = schemas()
    assert {topic.message.__name__ for topic in messages.TOPICS} < set(known)
    for schema in known.values():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert "$ref" not in json.dumps(schema)
    nan = float("nan")
    state = ArmsState(stamp_ns=1, position=[nan] * 14, velocity=[0.5] * 14, effort_ma=[1.0] * 14)
    for message in (
        state,
        Action(stamp_ns=1, tick=4, position=[1.0]),
        Health(stamp_ns=1, process="x", pid=1, figures={"a": nan}),
    ):
        jsonschema.validate(json.loads(channels.encoded(message)), known[type(message).__name__])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"stamp_ns": "soon", "tick": 1, "position": []}, known["Action"])


def test_foxglove_finds_its_own_fields() -> None:
    """The fields that its documentation requires of both schemas, under the names that it looks for."""
    known = schemas()
    line = json.loads(channels.line(3 * S + 5, "warning", "policy", "slow"))
    assert line == {
        "timestamp": {"sec": 3, "nsec": 5}, "level": 3, "message": "slow", "name": "policy", "file": "", "line": 0
    }  # fmt: skip
    jsonschema.validate(line, known["foxglove.Log"])
    picture = json.loads(channels.thumbnail(1, "cam_high", b"\xff\xd8"))
    assert picture == {"timestamp": {"sec": 0, "nsec": 1}, "frame_id": "cam_high", "data": "/9g=", "format": "jpeg"}
    jsonschema.validate(picture, known["foxglove.CompressedImage"])


def test_a_nan_that_was_sent_is_a_nan_again(tmp_path: Path) -> None:
    with FlightLog(made_logs.make(tmp_path / "log.mcap")) as log:
        *_, (_, last) = log.messages("/action_policy", Action)
        assert last.position[0] != last.position[0]
        assert last.position[1] == last.position[1]
        assert "/camera/cam_high" in log.counts()
        assert b'"pixels":""' in next(data for _, _, _, data in log.raw("/camera/cam_high"))
    health = Health(stamp_ns=1, process="x", pid=1, figures={"a": float("nan")})
    back = decoded(channels.encoded(health), Health)
    assert back.figures["a"] != back.figures["a"]
