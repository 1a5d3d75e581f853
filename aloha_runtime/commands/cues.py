"""What a person with both hands on the leaders hears: a spoken word where the machine can speak, else the bell."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Literal

SPEAKERS = (["spd-say", "--wait"], ["espeak-ng"], ["espeak"])
"""Programs that say their last argument; `apt install espeak-ng` brings one."""


class Cues:
    """Prints, and says or rings. Speaking never holds up the caller; a new word ends the one before."""

    def __init__(self, kind: Literal["voice", "bell", "off"], say: Callable[[str], None]) -> None:
        """`say` prints a line and never fails."""
        self._print = say
        self._kind = kind
        found = [command for command in SPEAKERS if shutil.which(command[0])]
        self._speaker = found[0] if found and kind == "voice" else None
        self._speaking: subprocess.Popen[bytes] | None = None

    def say(self, text: str, spoken: str = "") -> None:
        """`text` on the terminal, `spoken` (or the text) aloud."""
        if text:
            self._print(text)
        if self._speaker is not None:
            self._hush()
            self._speaking = subprocess.Popen(
                [*self._speaker, spoken or text],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        elif self._kind != "off" and sys.stdout.isatty():
            with contextlib.suppress(OSError):
                sys.stdout.write("\a")
                sys.stdout.flush()

    def _hush(self) -> None:
        if self._speaking is not None:
            self._speaking.terminate()
            self._speaking.wait()
            self._speaking = None

    def __enter__(self) -> "Cues":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hush()
