"""Pickled files of others: what is theirs comes out as it went in, and what is damaged or too large is refused."""

import contextlib
import io
import pickle  # noqa: TID251 - makes the files, never opens one
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aloha_runtime.act import pickled
from aloha_runtime.act.importer import read_pickle, read_torch_file
from aloha_runtime.errors import CheckpointError


def state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    shared = torch.arange(12.0)
    types = (
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    return {
        **network.state_dict(),
        "transposed": torch.arange(12.0).reshape(3, 4).t(),
        "part": shared[2:8:2],
        "same storage": shared[5:],
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        **{str(dtype): torch.arange(5).to(dtype) for dtype in types},
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_file_comes_out_as_it_went_in(zipped: bool, tmp_path: Path) -> None:
    path, state = tmp_path / "a.ckpt", state_dict()
    content = {"vip": OrderedDict(state), "step": 3, "more": [1.5, (2**70, "ü", None, True)], "np": np.float64(2.5)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_torch_file(path)
    assert {key: value for key, value in read.items() if key != "vip"} == {
        k: v for k, v in content.items() if k != "vip"
    }
    assert list(read["vip"]) == list(state)
    for name, value in state.items():
        assert read["vip"][name].dtype == value.dtype
        assert torch.equal(read["vip"][name], value)


def test_attributes_of_a_state_dict_are_left_out(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "a.ckpt")  # has _metadata
    read = read_torch_file(tmp_path / "a.ckpt")
    assert type(read) is dict
    assert list(read) == ["weight", "bias"]


STATS: dict[str, Any] = {
    "action_mean": np.linspace(-1, 1, 14).astype(np.float32),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big endian": np.arange(3, dtype=">f8"),
    "zero-dimensional": np.array(1.5),
    "empty": np.zeros((0, 3)),
    "bool": np.array([True, False]),
    "scalar": np.float32(0.5),
    "bytes": b"\x00\xff",
    "text": "qpos",
    "nested": {"list": [1, 2.5, None], "tuple": (True,)},
}


@pytest.mark.parametrize("numpy", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("protocol", range(6))
def test_pickle_of_arrays_comes_out_as_it_went_in(protocol: int, numpy: str, tmp_path: Path) -> None:
    content = pickle.dumps(STATS, protocol=protocol)
    if numpy == "numpy.core":  # numpy 1's name, in place of that of numpy 2
        for head in (b"c", b"\x8c\x16", b"\x8c\x13"):
            short = head[:1] + bytes([head[1] - 1]) if len(head) > 1 else head
            content = content.replace(head + b"numpy._core", short + b"numpy.core")
        content = _without_frames(content) if protocol >= 4 else content
    (tmp_path / "stats.pkl").write_bytes(content)
    read = read_pickle(tmp_path / "stats.pkl")
    assert list(read) == list(STATS)
    for name, value in STATS.items():
        assert np.array_equal(read[name], value), name
        assert getattr(read[name], "shape", None) == getattr(value, "shape", None) or name == "scalar"


def _without_frames(content: bytes) -> bytes:
    """Frames say their length, which a replacement changes; pickles need none."""
    return content[:2] + content[11:] if content[2:3] == b"\x95" else content


def _zip(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return file.getvalue()


def _view(size: int, stride: int, offset: int = 0, length: int = 1) -> bytes:
    """A state dict whose tensor looks at a storage of one number through these."""
    integers = [hostile.number(value) for value in (offset, size, stride, length)]
    kind = hostile.name("torch", "FloatStorage")
    source = hostile.row(hostile.text("storage"), kind, hostile.text("0"), hostile.text("cpu"), integers[3]) + b"Q"
    rebuild = hostile.name("torch._utils", "_rebuild_tensor_v2")
    return hostile.weights(
        hostile.call(rebuild, source, integers[0], hostile.row(integers[1]), hostile.row(integers[2]), b"\x89", b"}")
    )


GOOD = {"a/data.pkl": hostile.weights(hostile.tensor()), "a/data/0": bytes(4)}
BILLION = b"\x80\x02]q\x00" + b"".join(b"h%c\x86q%c" % (i, i + 1) for i in range(28)) + b"."
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a file of torch.save"),
    "text": (b"hello, world", "is not a file of torch.save"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "is not a file of torch.save"),
    "plain pickle": (pickle.dumps({"a": 1}), "is a plain pickle, not a file of torch.save"),
    "other zip": (_zip({"readme.txt": b"x"}), "is a zip file but not one of torch.save"),
    "TorchScript": (_zip({**GOOD, "a/constants.pkl": b""}), "is a zip file but not one of torch.save"),
    "big endian": (_zip({**GOOD, "a/byteorder": b"big"}), "big-endian"),
    "absolute entry": (_zip({**GOOD, "/etc/x": b""}), "an entry outside the archive, '/etc/x'"),
    "entry above": (_zip({**GOOD, "a/../../x": b""}), "an entry outside the archive, 'a/../../x'"),
    "compressed": (_zip({**GOOD, "a/data/0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED), "a compressed or encrypted entry"),
    "no storage": (_zip({"a/data.pkl": GOOD["a/data.pkl"]}), "is damaged"),
    "short storage": (_zip({**GOOD, "a/data/0": bytes(3)}), "is damaged"),
    "other storage": (_zip({**GOOD, "a/data/0": bytes(8)}), "storage 0 is not of the length"),
    "view beyond": (hostile.archive(_view(2, 1)), "in a storage of 1 numbers"),
    "view far beyond": (hostile.archive(_view(1, 1, offset=5)), "in a storage of 1 numbers"),
    "view before": (hostile.archive(_view(1, 1, offset=-1)), "offset -1"),
    "view backwards": (hostile.archive(_view(1, -1)), "stride (-1,)"),
    "one number a billion times": (hostile.archive(_view(1 << 30, 0)), "in a storage of 1 numbers"),
    "negative length": (hostile.archive(_view(1, 1, length=-1)), "unknown type or length"),
    "lists of lists": (_zip({**GOOD, "a/data.pkl": BILLION}), "nested deeper or wider"),
    "list in itself": (_zip({**GOOD, "a/data.pkl": b"\x80\x02]q\x00h\x00a."}), "nested deeper or wider"),
    "tuple as key": (_zip({**GOOD, "a/data.pkl": b"\x80\x02})Ns."}), "a key of type tuple"),
    "set": (_zip({**GOOD, "a/data.pkl": b"\x80\x04\x8f."}), "the pickle instruction EMPTY_SET"),
    "bare name": (_zip({**GOOD, "a/data.pkl": b"\x80\x02ctorch\nFloatStorage\n."}), "stands alone"),
    "call of no name": (_zip({**GOOD, "a/data.pkl": b"\x80\x02N)R."}), "a call of something that is not a name"),
    "state of a list": (_zip({**GOOD, "a/data.pkl": b"\x80\x02]}b."}), "setting the state of a list"),
    "legacy storage larger than the file": (
        hostile.legacy(hostile.SYSTEM_INFO, _view(1, 1, length=1 << 30)),
        "storage 0 is larger than the file",
    ),
    "legacy without its numbers": (
        hostile.legacy(hostile.SYSTEM_INFO, _view(1, 1)),
        "numbers of a storage are missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_torch_file_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    content, message = DAMAGED[name]
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(tmp_path / "a.ckpt")
    assert message in str(caught.value)
    assert str(tmp_path / "a.ckpt") in str(caught.value)


def test_small_pickle_that_makes_much_is_refused(tmp_path: Path) -> None:
    """One string of a megabyte, encoded a thousand times."""
    encode, kept = hostile.name("_codecs", "encode"), hostile.text("x" * (1 << 20)) + b"q\x01"
    again = hostile.row(b"h\x01", hostile.text("latin1"))
    content = hostile.many(kept, *[encode + again + b"R" for _ in range(1000)])
    (tmp_path / "a.pkl").write_bytes(hostile.program(content))
    with pytest.raises(CheckpointError, match="its values take more than 256 MB"):
        read_pickle(tmp_path / "a.pkl")


def test_pickle_of_too_many_values_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_INSTRUCTIONS", 1000)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(list(range(1001))))
    with pytest.raises(CheckpointError, match="more than 1000 values"):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([None], dtype=object), "are not numbers"),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), "are not numbers"),
        (np.array(["text"]), "are not numbers"),
        (np.ma.masked_array([1.0]), "numpy.ma"),
    ],
    ids=["objects", "record", "text", "masked"],
)
def test_arrays_of_anything_but_numbers_are_refused(value: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": value}))
    with pytest.raises(CheckpointError, match=message):
        read_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"\x80\x02])R.", "a call of something that is not a name"),  # a list is called
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call of something that is not a name"),  # only mentioned
        (b"\x80\x05N\x97.", "the pickle instruction NEXT_BUFFER"),
        (b"\x80\x02N\x82\x01.", "the pickle instruction EXT1"),
    ],
)
def test_only_what_is_known_is_done(tmp_path: Path, content: bytes, asked: str) -> None:
    path = tmp_path / "stats.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"is refused: it asks for {asked}"):
        read_pickle(path)


def test_what_follows_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({}) + pickle.dumps({}))
    with pytest.raises(CheckpointError, match="goes on after its pickle ends"):
        read_pickle(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(_zip(GOOD))
    with pytest.raises(CheckpointError, match=r"is a zip file, as torch.save writes"):
        read_pickle(tmp_path / "a.pkl")
    with pytest.raises(CheckpointError, match=r"cannot be opened .No such file"):
        read_pickle(tmp_path / "absent.pkl")


def _valid_files() -> list[bytes]:
    files = [pickle.dumps(STATS, protocol=protocol) for protocol in (0, 2, 5)]
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.arange(3.0), "b": torch.ones(2)}, file, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return files


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(_valid_files()), st.data())
def test_no_damage_escapes_as_another_error(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    """Bytes changed, cut or put in anywhere: a value or a CheckpointError, never anything else."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(damaged) - 1)))
        length = data.draw(st.integers(0, 3))
        damaged[place : place + length] = data.draw(st.binary(max_size=4))
    path = tmp_path / "a"
    path.write_bytes(damaged)
    for read in (read_pickle, read_torch_file):
        with contextlib.suppress(CheckpointError):
            read(path)
