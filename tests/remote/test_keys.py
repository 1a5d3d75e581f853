"""Keys and the allow-list: made private, refused when they are not, every mistake with what to type."""

import os
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from remote_machines import make_keys

from aloha_runtime.errors import ConfigError
from aloha_runtime.remote import gate
from aloha_runtime.remote.address import Address, bindable
from aloha_runtime.remote.keys import ALLOWED, PRIVATE, Keys, to_hex, to_z85


def test_a_new_key_is_for_its_user_alone_and_is_never_replaced(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    public = keys.create()
    assert (keys.directory.stat().st_mode & 0o777, (keys.directory / PRIVATE).stat().st_mode & 0o777) == (0o700, 0o600)
    assert keys.public() == public
    assert len(public) == 64
    with pytest.raises(ConfigError, match="is there already"):
        keys.create()
    assert keys.public() == public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    (keys,) = make_keys(tmp_path, "a")
    os.chmod(keys.directory / PRIVATE, mode)
    with pytest.raises(ConfigError, match=rf"open to others \(mode {mode:o}\): `chmod 600"):
        keys.private()


def test_a_list_or_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    ours, other = make_keys(tmp_path, "a", "b")
    ours.allow(other.public(), "b")
    os.chmod(ours.directory / ALLOWED, 0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        ours.allowed()
    os.chmod(ours.directory / ALLOWED, 0o600)
    os.chmod(ours.directory, 0o770)
    with pytest.raises(ConfigError, match="chmod 700"):
        ours.allowed()


def test_what_is_missing_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="make one with `aloha keys new`"):
        Keys(tmp_path).private()
    (keys,) = make_keys(tmp_path, "a")
    with pytest.raises(ConfigError, match="aloha keys allow KEY NAME"):
        keys.allowed()
    (keys.directory / ALLOWED).touch(0o600)
    with pytest.raises(ConfigError, match="allows nobody"):
        keys.allowed()


@pytest.mark.parametrize(
    "line", ["rubbish", "00 name", "g" * 64 + " name", "0" * 64, "0" * 64 + " a b", "0" * 64 + " ../x"]
)
def test_a_wrong_line_of_the_list_is_named(tmp_path: Path, line: str) -> None:
    ours, other = make_keys(tmp_path, "a", "b")
    ours.allow(other.public(), "b")
    with (ours.directory / ALLOWED).open("a") as file:
        file.write(f"# a comment\n{line}\n")
    with pytest.raises(ConfigError, match=rf"{ALLOWED}:3: "):
        ours.allowed()


def test_own_key_doubles_and_no_keys_are_not_allowed(tmp_path: Path) -> None:
    ours, other, third = make_keys(tmp_path, "a", "b", "c")
    with pytest.raises(ConfigError, match="own key"):
        ours.allow(ours.public(), "me")
    with pytest.raises(ConfigError, match="no public key"):
        ours.allow("rm -rf", "x")
    ours.allow(other.public().upper(), "b")
    for key, name in ((other.public(), "again"), (third.public(), "b")):
        with pytest.raises(ConfigError, match="edit that line"):
            ours.allow(key, name)
    assert ours.peer("").name == "b"
    ours.allow(third.public(), "c")
    with pytest.raises(ConfigError, match=r"several machines are allowed \(b, c\)"):
        ours.peer("")
    assert ours.peer("c").key == third.public()
    with pytest.raises(ConfigError, match="d is not among"):
        ours.peer("d")


@given(st.binary(min_size=32, max_size=32))
def test_hex_and_z85_are_the_same_key(key: bytes) -> None:
    assert to_hex(to_z85(key.hex())) == key.hex()


def test_nobody_listens_without_key_and_allow_list(tmp_path: Path) -> None:
    with zmq.Context() as context:
        for prepare in (lambda keys: None, lambda keys: keys.create()):
            keys = Keys(tmp_path / "keys")
            prepare(keys)
            with pytest.raises(ConfigError):
                gate.listen(context, keys, "tcp://127.0.0.1:0", 1000)


@pytest.mark.parametrize(
    "text",
    ["tcp://*:1", "tcp://host", "tcp://host:0", "tcp://host:99999", "udp://a:1", "tcp://a b:1", "tcp://h:1#xyz", ""],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no address of a policy server"):
        Address.parse(text)


def test_addresses_are_read_and_a_name_is_nothing_to_listen_at() -> None:
    address = Address.parse("tcp://gpu@10.0.0.7:5571#" + "ab" * 32)
    assert (address.name, address.endpoint, address.digest) == ("gpu", "tcp://10.0.0.7:5571", "ab" * 32)
    assert Address.parse(address.pinned("cd" * 32)).digest == "cd" * 32
    assert bindable("tcp://[::1]:5571") == "tcp://[::1]:5571"
    with pytest.raises(ConfigError, match="give an IP address"):
        bindable("tcp://gpu.local:5571")


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([b"1.0", b"7", b"aloha", b"::1", b"", b"NULL"], "no key"),
        ([b"1.0", b"7", b"aloha", b"::1", b"", b"PLAIN", b"user", b"password"], "no key"),
        ([b"1.0", b"7", b"aloha", b"::1", b"", b"CURVE", b"short"], "no key"),
        ([b"1.0", b"7", b"aloha", b"::1", b"", b"CURVE", bytes(32)], "unknown key"),
        ([b"1.0", b"7", b"other", b"::1", b"", b"CURVE", bytes(32)], "not understood"),
        ([b"2.0", b"7", b"aloha", b"::1", b"", b"CURVE", bytes(32)], "not understood"),
        ([b"1.0", b"7"], "not understood"),
        ([], "not understood"),
    ],
)
def test_the_key_handler_knows_curve_alone(tmp_path: Path, parts: list[bytes], verdict: str) -> None:
    ours, other = make_keys(tmp_path, "a", "b")
    ours.allow(other.public(), "b")
    with zmq.Context() as context:
        keeper = gate.Gatekeeper(context, ours)
        try:
            assert keeper._answer(parts)[2:5] == [b"400", b"key not allowed", b""]
            assert keeper.counts == {verdict: 1}
            good = keeper._answer([b"1.0", b"8", b"aloha", b"::1", b"", b"CURVE", bytes.fromhex(other.public())])
            assert good == [b"1.0", b"8", b"200", b"OK", b"b", b""]
        finally:
            keeper.close()
