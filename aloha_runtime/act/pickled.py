"""The pickle format as pure data: a small machine of our own that can build containers and nothing else.

A pickle is a program for a stack machine, and Python's own machine looks up and calls whatever the program names. This
one knows no attribute, no import and no callable: a name in the file is only looked up in a table of builders that the
caller gives, by exact match, and an instruction that is not handled below is refused. `pickletools` (standard library)
splits the file into instructions without running any.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from aloha_runtime.errors import CheckpointError

Builder = Callable[..., Any]
"""Makes one value of the arguments in the file. It must check their types: a hostile file chooses them."""
Names = Mapping[tuple[str, str], "Builder | Node"]
"""`{(module, name): what stands for it}`: a builder for what the file calls, a node for what it only mentions."""

MAX_BYTES = 64 << 20
"""Longest pickle that is read. A state dict's is some 100 kB, since the numbers of the tensors lie outside it."""
MAX_MADE = 4 * MAX_BYTES
"""Most bytes of what builders make of one pickle; the storages of tensors are counted elsewhere."""
MAX_INSTRUCTIONS = 2_000_000
"""Most instructions (and so values) of one pickle; a state dict of 300 tensors has about 15,000."""
MAX_SHARING = 16
"""Most values that come out for each instruction: a pickle may mention a container again, but not a billion times."""
MAX_DEPTH = 32
"""Deepest nesting of containers; a state dict has 3."""

_PUSH = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
"""Instructions that push the value written in them."""
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_GET, _PUT = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

DAMAGED = (ValueError, TypeError, IndexError, KeyError, OverflowError, RuntimeError, EOFError, struct.error)
"""What reading a damaged file raises, here and in the builders."""


class Node:
    """A value still under construction: made by a builder, completed by `build`, replaced by `value` at the end."""

    def build(self, state: Any) -> None:
        """Take the state that the file gives to this value."""
        raise ValueError("a value that takes no state is given one")

    def value(self) -> Any:
        raise ValueError("a value that is only part of another stands alone")


class _Function(Node):
    """A name of the allow-list that may be called."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder


def read(file: BinaryIO, path: Path, names: Names, persistent: Builder | None = None) -> Any:
    """The value of the pickle that starts where `file` stands, and leave `file` behind its end.

    `persistent` makes a value of a persistent id (torch's reference to a storage). The result holds dicts, lists,
    tuples, numbers, strings, bytes, None, and what builders make. Raises CheckpointError naming `path` and what in it
    is refused.
    """
    machine = _Machine(path, names, persistent)
    start = file.tell()
    content = io.BytesIO(file.read(MAX_BYTES))
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            if count >= MAX_INSTRUCTIONS:
                raise CheckpointError(
                    f"{path}: a pickle of more than {MAX_INSTRUCTIONS} values is more than weights need"
                )
            if opcode.name == "STOP":
                file.seek(start + (position or 0) + 1)
            else:
                machine.run(opcode.name, argument)
        return machine.result()
    except DAMAGED as error:
        raise CheckpointError(f"{path} is damaged or not a pickle ({error}); copy the file again") from error


def refuse(path: Path, what: str) -> CheckpointError:
    """The error for content that could run code (or is at least more than numbers in containers)."""
    return CheckpointError(
        f"{path} is refused: it asks for {what}, and weights and statistics need no such thing; opening the file with "
        "pickle or torch.load could run code. If you trust who made it, let them save its state dict as safetensors"
    )


class _Machine:
    """Stack, marks and memo; one short method for each kind of instruction."""

    def __init__(self, path: Path, names: Names, persistent: Builder | None) -> None:
        self.path, self.names, self.persistent = path, names, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.values_left, self.bytes_left = 0, MAX_MADE

    def run(self, name: str, argument: Any) -> None:
        self.values_left += MAX_SHARING
        if name in _PUSH:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _GET:
            self.stack.append(self.memo[argument])
        elif name in _PUT or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in _TUPLES:
            self.stack.append(tuple([self.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name in ("GLOBAL", "STACK_GLOBAL", "INST"):
            self.name(argument.split(" ", 1) if argument else [self.pop(), self.pop()][::-1])
        elif name not in ("PROTO", "FRAME"):
            method = _METHODS.get(name)
            if method is None:
                raise refuse(self.path, f"the pickle instruction {name}")
            method(self)

    def pop(self) -> Any:
        return self.stack.pop()

    def name(self, parts: list[Any]) -> None:
        module, name = parts
        found = self.names.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            raise refuse(self.path, f"{module}.{name}"[:200])
        self.stack.append(found if isinstance(found, Node) else _Function(found))

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def make_list(self) -> None:
        items = self.since_mark()  # which changes the stack
        self.stack.append(items)

    def make_tuple(self) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def make_dict(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def append(self) -> None:
        self.extend([self.pop()])

    def appends(self) -> None:
        self.extend(self.since_mark())

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("something is appended to what is not a list")
        self.stack[-1].extend(items)

    def setitem(self) -> None:
        self.set_items([self.pop(), self.pop()][::-1])

    def setitems(self) -> None:
        self.set_items(self.since_mark())

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError("items are set in what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):  # hashing a tuple of tuples of ... could take for ever
                raise TypeError(f"a key of type {type(key).__name__}")
            target[key] = value

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise refuse(self.path, "a call of something that is not a name")
        made = function.builder(*arguments)
        self.count_bytes(made)
        self.stack.append(made)

    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1]
        if isinstance(target, Node):
            target.build(state)
        elif not isinstance(target, dict):  # the attributes that torch keeps on a state dict are of no use here
            raise refuse(self.path, f"setting the state of a {type(target).__name__}")

    def binpersid(self) -> None:
        if self.persistent is None:
            raise refuse(self.path, "a persistent id")
        self.stack.append(self.persistent(self.pop()))

    def count_bytes(self, made: Any) -> None:
        """Small files must not make large values, as by copying one string of the file a million times."""
        self.bytes_left -= len(made) if isinstance(made, bytes) else getattr(made, "nbytes", 0)
        if self.bytes_left < 0:
            raise CheckpointError(f"{self.path} is refused: its values take more than {MAX_MADE >> 20} MB")

    def result(self) -> Any:
        """The one value left, free of what was only needed on the way."""
        if len(self.stack) != 1 or self.marks:
            raise ValueError("the stack does not hold one value at the end")
        return self.finished(self.stack[0], 0)

    def finished(self, value: Any, depth: int) -> Any:
        self.values_left -= 1
        if (
            depth > MAX_DEPTH or self.values_left < 0
        ):  # also a list that holds itself, or one list a thousand times a thousand
            raise CheckpointError(f"{self.path} is refused: containers nested deeper or wider than weights need")
        if isinstance(value, Node):
            value = value.value()
            self.count_bytes(value)
        if isinstance(value, dict):
            return {key: self.finished(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.finished(item, depth + 1) for item in value)
        return value


_METHODS: dict[str, Callable[[_Machine], None]] = {
    "MARK": _Machine.mark, "LIST": _Machine.make_list, "TUPLE": _Machine.make_tuple, "DICT": _Machine.make_dict,
    "APPEND": _Machine.append, "APPENDS": _Machine.appends, "SETITEM": _Machine.setitem,
    "SETITEMS": _Machine.setitems, "REDUCE": _Machine.reduce, "BUILD": _Machine.build,
    "BINPERSID": _Machine.binpersid,
}  # fmt: skip
"""INST, OBJ, NEWOBJ, NEWOBJ_EX, PERSID, EXT, sets and buffers outside the file are not among them."""
