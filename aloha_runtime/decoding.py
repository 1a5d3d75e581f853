"""Decoders of bytes that others have sent: what is not understood is one kind of error, however it is made."""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

Buffer = bytes | bytearray | memoryview


@cache
def decoder(kind: Any) -> Callable[[Buffer], Any]:
    """A function of msgpack bytes that gives a value of `kind` (a type, or a union of tagged ones) and raises
    msgspec.DecodeError, of which msgspec.ValidationError is one kind, for everything else.

    Lengths are bounded by the type's own constraints, sizes by the socket; nesting is followed no deeper than the
    interpreter's stack allows, and what is deeper is not understood.
    """
    decode = msgspec.msgpack.Decoder(kind).decode

    def decoded(data: Buffer) -> Any:
        try:
            return decode(data)
        except msgspec.DecodeError:
            raise
        except (RecursionError, ValueError) as error:  # nested too deep; text that is no UTF-8
            raise msgspec.DecodeError(str(error)) from None

    return decoded
