"""Named mutants: each breaks one promise of docs/safety.md or docs/security.md on purpose, and a test must notice.

    python scripts/mutants.py                      all of them; exit code 1 unless every one was killed
    python scripts/mutants.py lead freeze          those with `lead` or `freeze` in their name
    python scripts/mutants.py --list               what they are, without running any

They are written down in tests/mutants/*.toml, one table for each:

    [name-of-the-mutant]
    promise = "what no longer holds"
    file = "aloha_runtime/control/gate.py"
    old = "text that occurs exactly once in the file"
    new = "what stands there instead"
    test = "tests/control/test_gate.py::test_that_must_fail"
    hangs = true        # only where the test is expected to run into its time limit

Each worker has a copy of this tree in a temporary folder and changes one file of it at a time. A mutant is killed when
its test fails while it runs. One that cannot be imported, or that uses a name which does not exist, is broken: any test
would notice that, so nothing is shown by it.
"""

import argparse
import contextlib
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path("tests/mutants")
NOT_COPIED = ("outputs", "__pycache__", "*.egg-info")
WORKERS = 2
NICENESS = 10
PATIENCE_S, PATIENCE_FACTOR = 45, 6
"""A mutated test may take this long, and so many times as long as without the mutant."""
NO_PROGRAM = "SyntaxError|IndentationError|ImportError|ModuleNotFoundError|NameError"
BROKEN = re.compile(rf"^(failed on \w+ with ['\"])?(\w+\.)*({NO_PROGRAM})\b")
"""Errors that say that the mutant is no program, not that a promise is broken."""
TIMEOUT = re.compile(r"Timeout\b.*pytest-timeout", re.DOTALL)

KILLED, SURVIVED, LATE, BROKEN_MUTANT = "killed", "SURVIVED", "TIMEOUT", "BROKEN"
OUT_OF_DATE, TEST_FAILS = "OUT OF DATE", "TEST FAILS WITHOUT IT"


@dataclass(frozen=True)
class Mutant:
    """One deliberate defect. `file` and `test` are relative to the repository."""

    name: str
    promise: str
    file: str
    old: str
    new: str
    test: str
    hangs: bool = False


@dataclass(frozen=True)
class Run:
    """What a run of pytest came to: its exit code, the messages of what failed, seconds of each test by name."""

    code: int
    messages: list[str]
    seconds: dict[str, float]
    output: str
    overdue: bool = False


def load(root: Path = ROOT) -> list[Mutant]:
    """Every mutant, in the order of the files. Raises ValueError for a table that does not fit."""
    found = []
    for path in sorted((root / FOLDER).glob("*.toml")):
        for name, fields in tomllib.loads(path.read_text(encoding="utf-8")).items():
            try:
                found.append(Mutant(name, **fields))
            except TypeError as error:
                raise ValueError(f"{path.name}: [{name}] does not fit: {error}") from None
    return found


def mutated(mutant: Mutant, text: str) -> str:
    """The file with the defect. Raises ValueError when the text to replace is not there exactly once."""
    count = text.count(mutant.old)
    if count != 1 or mutant.new == mutant.old:
        raise ValueError(f"{mutant.name} is out of date: its text occurs {count} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


class Copy:
    """A copy of the repository in which one worker changes files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        ignored = shutil.ignore_patterns(*NOT_COPIED)
        for path in ROOT.iterdir():
            if path.name.startswith(".") or path.name in NOT_COPIED:
                continue
            if path.is_dir():
                shutil.copytree(path, place / path.name, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(path, place / path.name)
        self._report = place / "report.xml"

    def pytest(self, tests: Iterable[str], limit_s: float) -> Run:
        """Run tests in the copy, up to the first failure."""
        self._report.unlink(missing_ok=True)
        words = [
            "-x",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            f"--junitxml={self._report}",
            f"--timeout={limit_s:.0f}",
            "--hypothesis-profile=mutants",
        ]
        environment = {**os.environ, "PYTHONPATH": str(self.place)}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *words, *tests], cwd=self.place, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, overdue = process.communicate(timeout=limit_s + PATIENCE_S)[0], False
        except subprocess.TimeoutExpired:
            output, overdue = "", True
        finally:  # whatever the tests started and a mutant kept from ending
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Run(process.returncode, *self._read(), output, overdue)

    def _read(self) -> tuple[list[str], dict[str, float]]:
        messages: list[str] = []
        seconds: dict[str, float] = {}
        try:
            cases = list(ET.parse(self._report).iter("testcase"))  # noqa: S314  (our own pytest wrote it)
        except (OSError, ET.ParseError):
            return messages, seconds
        for case in cases:
            name = str(case.get("name")).partition("[")[0]
            seconds[name] = seconds.get(name, 0.0) + float(case.get("time", 0))
            messages += [
                f"{found.get('message') or ''}\n{found.text or ''}"
                for found in case
                if found.tag in ("failure", "error")
            ]
        return messages, seconds

    def undefined_names(self, file: str) -> str:
        """What ruff says of names that do not exist; empty when they all do, and for what is no Python."""
        if not file.endswith(".py"):
            return ""
        words = [
            "--isolated",
            "--no-cache",
            "--select",
            "E9,F821",
            "--output-format",
            "concise",
            str(self.place / file),
        ]
        found = subprocess.run(
            [sys.executable, "-m", "ruff", "check", *words], capture_output=True, text=True, check=False
        )
        return found.stdout if found.returncode else ""

    def put(self, file: str, text: str) -> None:
        """Replace a file, and forget what was compiled of it: within a second, sizes and times may be the same."""
        path = self.place / file
        path.write_text(text, encoding="utf-8")
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()

    def judge(self, mutant: Mutant, seconds: float) -> tuple[str, str]:
        """Verdict on one mutant, and what there is to say."""
        original = (self.place / mutant.file).read_text(encoding="utf-8")
        try:
            changed = mutated(mutant, original)
        except ValueError as error:
            return OUT_OF_DATE, str(error)
        self.put(mutant.file, changed)
        try:
            if names := self.undefined_names(mutant.file):
                return BROKEN_MUTANT, names
            return verdict(mutant, self.pytest([mutant.test], PATIENCE_S + PATIENCE_FACTOR * seconds))
        finally:
            self.put(mutant.file, original)


def verdict(mutant: Mutant, run: Run) -> tuple[str, str]:
    """What a run of its test says of a mutant."""
    late = run.overdue or any(TIMEOUT.search(message) for message in run.messages)
    if late:
        return (KILLED, "by its time limit") if mutant.hangs else (LATE, "the test ran into its time limit")
    if run.code == 0:
        return SURVIVED, ""
    first = run.messages[0].strip() if run.messages else ""
    if run.code != 1 or not first or "collection failure" in first[:40] or BROKEN.match(first):
        return BROKEN_MUTANT, first[:300] or run.output[-300:]
    return KILLED, first.splitlines()[0][:200]


def unmutated(copy: Copy, tests: list[str]) -> Run:
    """The named tests of one file as they are."""
    return copy.pytest(tests, 600)


class Workers:
    """Copies with a thread each, which take one thing after the other."""

    def __init__(self, folder: Path, count: int) -> None:
        self.copies = [Copy(folder / str(number)) for number in range(count)]

    def each(self, things: list, act) -> None:  # type: ignore[type-arg,no-untyped-def]
        waiting: queue.SimpleQueue = queue.SimpleQueue()  # type: ignore[type-arg]
        for thing in things:
            waiting.put(thing)

        def work(copy: Copy) -> None:
            while True:
                try:
                    thing = waiting.get_nowait()
                except queue.Empty:
                    return
                act(copy, thing)

        threads = [threading.Thread(target=work, args=(copy,)) for copy in self.copies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def check(mutants: list[Mutant], workers: Workers) -> dict[str, tuple[str, str, float]]:
    """Verdict, what there is to say, and seconds, by name of the mutant."""
    by_file: dict[str, list[str]] = {}
    for mutant in mutants:
        tests = by_file.setdefault(mutant.test.partition("::")[0], [])
        if mutant.test not in tests:
            tests.append(mutant.test)
    seconds: dict[str, float] = {}
    failing: dict[str, str] = {}

    def look(copy: Copy, file: str) -> None:
        run = unmutated(copy, by_file[file])
        for test in by_file[file]:
            seconds[test] = run.seconds.get(test.rpartition("::")[2].partition("[")[0], 0.0)
            if run.code:
                failing[test] = (run.messages or [run.output])[0][-600:]
        print(f"without mutants: {'FAILS' if run.code else 'passes'}  {file}", flush=True)

    workers.each(list(by_file), look)
    results: dict[str, tuple[str, str, float]] = {}

    def judge(copy: Copy, mutant: Mutant) -> None:
        began = time.monotonic()
        if mutant.test in failing:
            found = (TEST_FAILS, failing[mutant.test])
        else:
            found = copy.judge(mutant, seconds[mutant.test])
        took_s = time.monotonic() - began
        results[mutant.name] = (*found, took_s)
        print(f"[{len(results):3}/{len(mutants)}] {took_s:5.1f} s  {found[0]:8}  {mutant.name}", flush=True)
        if found[0] != KILLED:
            print(f"          {found[1]}", flush=True)

    workers.each(sorted(mutants, key=lambda mutant: -seconds.get(mutant.test, 0.0)), judge)
    return results


def table(mutants: list[Mutant], results: dict[str, tuple[str, str, float]]) -> list[str]:
    """One line for each mutant."""
    width = max(len(mutant.name) for mutant in mutants)
    lines = []
    for mutant in mutants:
        found, _, seconds = results[mutant.name]
        lines.append(f"{found:8}  {seconds:5.1f} s  {mutant.name:{width}}  {mutant.promise}\n{'':20}{mutant.test}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of names; all mutants when none is given")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--list", action="store_true", help="print the mutants and run none")
    asked = parser.parse_args()
    mutants = [m for m in load() if not asked.names or any(part in m.name for part in asked.names)]
    if not mutants:
        print(f"no mutant has {' or '.join(asked.names)} in its name: see --list", file=sys.stderr)
        return 2
    if asked.list:
        print("\n".join(f"{mutant.name}: {mutant.promise}\n    {mutant.file}, {mutant.test}" for mutant in mutants))
        return 0
    os.nice(NICENESS)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aloha-mutants-") as folder:
        results = check(mutants, Workers(Path(folder), min(asked.workers, len(mutants))))
    print("\n" + "\n".join(table(mutants, results)))
    counts = Counter(found[0] for found in results.values())
    said = ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = f"{(time.monotonic() - began) / 60:.1f} minutes, {(used.ru_utime + used.ru_stime) / 60:.1f} of CPU"
    print(f"\n{len(mutants)} mutants: {said}; {spent}, {asked.workers} workers")
    return int(counts != {KILLED: len(mutants)})


if __name__ == "__main__":
    sys.exit(main())
