"""Every place that deletes something is in the table of docs/security.md, with the proof that it is ours to delete."""

import ast
import re
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "aloha_runtime"
TABLE = Path(__file__).parents[2] / "docs/security.md"
DELETING = {"unlink", "rmtree", "rmdir", "removedirs", "remove_empty", "remove_inside"}
MODULES = {"os", "shutil", "owned"}
"""Whose `remove` deletes; that of a list or a set does not."""
ROW = re.compile(r"^\| `([\w/]+\.py)` \((\d+)\) \| ([^|]+) \| ([^|]+) \|$", re.M)


def deletions(text: str) -> int:
    """How often a source file names something that deletes, called or handed on."""
    found = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", "")
            found += node.attr in DELETING or (node.attr == "remove" and owner in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found += sum(alias.name in DELETING | {"remove"} for alias in node.names)
    return found


def test_every_deletion_is_in_the_table_with_its_proof() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    there = Counter({str(path.relative_to(PACKAGE)): deletions(path.read_text()) for path in files})
    rows = ROW.findall(TABLE.read_text())
    listed = Counter({name: int(count) for name, count, _, _ in rows})
    assert +there == listed, "say in docs/security.md what is deleted there, and what proves that this program wrote it"
    assert all(len(what) > 5 and len(proof) > 10 for _, _, what, proof in rows)


def test_a_new_deletion_is_noticed() -> None:
    for text in (
        "path.unlink()",
        "shutil.rmtree(path)",
        "os.remove(path)",
        "steps.callback(path.unlink)",
        "from shutil import rmtree",
        "from os import remove as gone",
        "owned.remove(path)",
    ):
        assert deletions(text) == 1, text
    assert deletions("names.remove(path)") == 0
