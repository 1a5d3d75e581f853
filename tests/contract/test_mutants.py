"""Mutants are up to date, and every promise of the documents names a test and a mutant. Nothing is mutated here."""

import ast
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TABLES = {"docs/safety.md": "## The promises", "docs/security.md": "# Security"}
"""Document -> the heading above its table of promises."""


@cache
def mutants() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Names of the test functions of a file, also those in classes."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


@cache
def every_test() -> frozenset[str]:
    return frozenset().union(*(functions_of(path) for path in (ROOT / "tests").rglob("test_*.py")))


def rows(document: str, heading: str) -> list[list[str]]:
    """Cells of each row of the first table below a heading, without its head."""
    text = (ROOT / document).read_text().partition(f"{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None, f"{document} has no table below {heading}"
    return [line.strip("| ").split(" | ") for line in table[0].splitlines()[2:]]


def shown_by(cell: str) -> tuple[list[str], list[str]]:
    """Tests and mutants that the last cell of a row names."""
    before, _, after = re.split(r"(mutants?:)", cell) if "mutant" in cell else (cell, "", "")
    tests = [name for name in re.findall(r"`([^`]+)`", before) if name.startswith(("test_", "tests/"))]
    return tests, re.findall(r"`([^`]+)`", after)


@pytest.mark.parametrize("name", [mutant.name for mutant in mutants().load()])
def test_a_mutant_fits_the_code_and_its_test_exists(name: str) -> None:
    (mutant,) = (mutant for mutant in mutants().load() if mutant.name == name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    path = (ROOT / mutant.file).resolve()
    assert path.is_relative_to(ROOT)
    assert not path.is_relative_to(ROOT / "tests"), "a mutant breaks the program, never a test"
    changed = mutants().mutated(mutant, path.read_text())
    if path.suffix == ".py":
        compile(changed, mutant.file, "exec")
    file, _, function = mutant.test.partition("::")
    assert function in functions_of(ROOT / file)


@pytest.mark.parametrize(("document", "heading"), TABLES.items())
def test_every_promise_names_a_test_and_a_mutant_that_exist(document: str, heading: str) -> None:
    known = {mutant.name for mutant in mutants().load()}
    for cells in rows(document, heading):
        tests, named = shown_by(cells[-1])
        assert tests, f"{document}: no test shows: {cells[0]}"
        assert named, f"{document}: no mutant breaks: {cells[0]}"
        for test in tests:
            assert (ROOT / test).is_file() if "/" in test else test in every_test(), f"{document} names {test}"
        assert set(named) <= known, f"{document} names {set(named) - known}"


def test_every_mutant_breaks_a_promise_of_the_documents() -> None:
    named = {name for table in TABLES.items() for cells in rows(*table) for name in shown_by(cells[-1])[1]}
    assert {mutant.name for mutant in mutants().load()} <= named


def test_a_mutant_whose_text_is_gone_or_twice_is_out_of_date() -> None:
    mutant = mutants().Mutant("x", "", "f", "old", "new", "t")
    assert mutants().mutated(mutant, "an old one") == "an new one"
    for text in ("nothing", "old and old"):
        with pytest.raises(ValueError, match="x is out of date"):
            mutants().mutated(mutant, text)


@pytest.mark.parametrize(
    ("code", "messages", "overdue", "hangs", "said"),
    [
        (0, [], False, False, "SURVIVED"),
        (1, ["assert 1 == 2\n..."], False, False, "killed"),
        (1, ["Failed: DID NOT RAISE <class 'ValueError'>"], False, False, "killed"),
        (1, ["AssertionError: the NameError of a child"], False, False, "killed"),
        (1, ["NameError: name 'x' is not defined"], False, False, "BROKEN"),
        (1, ["failed on setup with \"ImportError: cannot import name 'x'\""], False, False, "BROKEN"),
        (1, ["collection failure\nE   KeyError"], False, False, "BROKEN"),
        (2, ["collection failure"], False, False, "BROKEN"),
        (4, [], False, False, "BROKEN"),
        (-9, [], True, False, "TIMEOUT"),
        (-9, [], True, True, "killed"),
        (1, ["Failed: Timeout (>45.0s) from pytest-timeout."], False, False, "TIMEOUT"),
        (1, ["Failed: Timeout (>45.0s) from pytest-timeout."], False, True, "killed"),
    ],
)
def test_only_a_test_that_fails_by_itself_kills(
    code: int, messages: list[str], overdue: bool, hangs: bool, said: str
) -> None:
    mutant = mutants().Mutant("x", "", "f", "old", "new", "t", hangs)
    run = mutants().Run(code, messages, {}, "", overdue)
    assert mutants().verdict(mutant, run)[0] == said
