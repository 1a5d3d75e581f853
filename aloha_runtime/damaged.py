"""What others wrote is read by decoders that raise whatever they like: one clear line comes out of it, in one place.

Readers check what they can name better themselves, and raise their own error. `reads` is for all the rest: a null where
a number belongs, a list of another length, a size that needs more memory than there is.
"""

import functools
import struct
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from aloha_runtime.errors import AlohaError

CONTENT: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    EOFError,
    AssertionError,
    struct.error,
)
"""What decoders raise about content, beside exceptions of their own."""
LONGEST_REASON = 300
P = ParamSpec("P")
R = TypeVar("R")


def reason(error: BaseException) -> str:
    """An error of a decoder in one line."""
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= LONGEST_REASON else said[:LONGEST_REASON] + "..."


def reads(
    kind: type[AlohaError], remedy: str, also: Sequence[type[BaseException]] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of functions that read what their first path (or object with a `path`) names: whatever a decoder
    raises becomes one `kind` that names it. `also`: exceptions of the decoders themselves, and OSError where nothing is
    written, whose errors are not the reader's."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def reading(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except AlohaError:
                raise
            except (*CONTENT, *also) as error:
                raise kind(
                    f"{_named((*args, *kwargs.values()))} cannot be read ({reason(error)}): it is damaged, or not what"
                    f" its place says. {remedy}"
                ) from error

        return reading

    return decorate


def _named(values: Sequence[Any]) -> str:
    for value in values:
        if isinstance(value, (str, PathLike)):
            return str(value)
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], PathLike):
            return ", ".join(map(str, value))
        if isinstance(path := getattr(value, "path", None), PathLike):
            return str(path)
    return "what was given"
