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

HUSHED_S = 0.2
"""A program that does not end by then is killed: nobody waits for a word."""


class Cues:
    """Prints, and says or rings; where it cannot speak, it rings. Speaking never holds up the caller; a new
    word ends the one before."""

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
        if self._speaks(spoken or text):
            return
        if self._kind != "off" and sys.stdout.isatty():
            with contextlib.suppress(OSError):
                sys.stdout.write("\a")
                sys.stdout.flush()

    def _speaks(self, words: str) -> bool:
        """Begin to say it. False where nothing speaks, also when the machine has no room for one process more: a cue
        must not end what it accompanies."""
        if self._speaker is None:
            return False
        self._hush()
        try:
            self._speaking = subprocess.Popen(
                [*self._speaker, words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, ValueError, MemoryError, subprocess.SubprocessError):
            return False
        return True

    def _hush(self) -> None:
        if self._speaking is None:
            return
        self._speaking.terminate()
        try:
            self._speaking.wait(HUSHED_S)
        except subprocess.TimeoutExpired:
            self._speaking.kill()
            self._speaking.wait()
        self._speaking = None

    def __enter__(self) -> "Cues":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hush()
