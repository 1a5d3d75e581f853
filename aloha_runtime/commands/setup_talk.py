"""How `aloha setup` talks to a person, or to a file of answers."""

import sys
from collections.abc import Callable
from pathlib import Path

import typer
import yaml

from aloha_runtime.errors import ConfigError


class Person:
    """Answers by name (`ports.leader_left`); what the file does not have is asked for.

    `yes`: take every default, and the person has already done what has to be done by hand.
    """

    def __init__(self, answers: dict[str, str] | None = None, yes: bool = False) -> None:
        self._answers = answers or {}
        self._yes = yes
        self._used: set[str] = set()
        self.hands: Callable[[str], None] = lambda _: None
        """Does by name what is asked for by hand, where there is no robot to do it to."""

    def say(self, text: str) -> None:
        typer.echo(text)

    def known(self, name: str) -> str | None:
        """The answer from the file."""
        self._used.add(name)
        return self._answers.get(name)

    def ask(self, name: str, question: str, default: str | None = None) -> str:
        """One line; an empty one is the default. Raises ConfigError where nobody can be asked."""
        answer = self.known(name)
        if answer is None and self._yes and default is not None:
            answer = default
        if answer is None and not sys.stdin.isatty():
            raise ConfigError(f"nobody is there to answer {question!r}: add `{name}: ...` to the file of --answers")
        return (
            answer if answer is not None else str(typer.prompt(question, default=default, show_default=bool(default)))
        )

    def types(self, name: str) -> bool:
        """A person answers this one, and can be asked again."""
        return self.known(name) is None and not self._yes and sys.stdin.isatty()

    def agrees(self, name: str, question: str, default: bool = True) -> bool:
        """Yes or no."""
        return self.ask(name, f"{question} (yes/no)", "yes" if default else "no").lower().startswith("y")

    def does(self, name: str, what: str) -> None:
        """Wait until a person has done something."""
        if self.known(name) is None and not self._yes:
            self.say(what)
            self.ask(name, "... then press Enter", "")
        self.hands(name)

    def unused(self) -> list[str]:
        """Answers that nothing asked for: typing mistakes, most likely."""
        return sorted(set(self._answers) - self._used)


def read_answers(path: Path) -> dict[str, str]:
    """Names and answers from a YAML file; ConfigError when it is anything else."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: no file of answers: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str | int | float) for value in found.values()):
        raise ConfigError(f"{path}: expected lines like `ports.leader_left: /dev/ttyUSB0`")
    words = {True: "yes", False: "no"}
    return {str(name): words[value] if isinstance(value, bool) else str(value) for name, value in found.items()}
