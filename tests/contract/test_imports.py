"""The rooms and their one-way imports (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "aloha_runtime"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"cli"},
    {"commands"},
    {"processes"},
    {"service"},
    {"witnesses"},
    {"act"},
    {"flight_log"},
    {"sim", "data", "inputs"},
    {"control"},
    {"hardware"},
    {"dynamixel"},
    {"rings"},
    {"ring_memory"},
    {"bus", "remote"},
    {"time_server"},
    {"virtual_time", "time_server"},
    {"realtime", "run_directory", "busy_threads", "durable", "inside"},
    {"config"},
    {"config_stop"},
    {"config_mistakes", "config_parts", "messages", "robot"},
    {"config_cameras", "config_joints"},
    {"config_strict", "damaged"},
    {"config_strings", "decoding", "errors", "jpeg", "key_names", "stillness"},
]
"""Top to bottom: a room imports from rooms below it only (and from itself)."""

FORBIDDEN_CALLS = {"eval", "exec"}
FORBIDDEN_ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("time", "time"), ("pickle", "load"), ("pickle", "loads")}

WALL_TIME = {
    *(("time", name) for name in ("time", "time_ns", "localtime", "gmtime", "CLOCK_REALTIME")),
    *(("datetime", name) for name in ("now", "utcnow", "today")),
    ("date", "today"),
}
FOR_PEOPLE = (
    "act/provenance.py",  # when a checkpoint was written
    "processes/flight.py",  # wall time of a log, beside the monotonic stamps
    "processes/recorder.py",  # when an episode began
    "data/staging.py",  # the day on which something was set aside
    "data/steps.py",  # when an edit was made
    "commands/evaluate_page.py",  # footers of pages
    "commands/report_page.py",
    "commands/score_page.py",
)


def rank(room: str) -> int:
    for level, names in enumerate(LAYERS):
        if room in names:
            return level
    raise AssertionError(f"room {room} is in no layer: add it to LAYERS and to docs/architecture.md")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[str]:
    """Full names of all modules that a file imports, at any depth."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own_rooms(path: Path) -> set[str]:
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("aloha_runtime.")}
    return {room for room in rooms if not room.startswith("__")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        assert own_rooms(path) == set()
        return
    for other in own_rooms(path) - {room}:
        assert rank(other) > rank(room), f"{path.relative_to(PACKAGE)} imports {other}, which is not below {room}"


def test_processes_never_import_each_other() -> None:
    for path in (PACKAGE / "processes").glob("*.py"):
        siblings = [
            name for name in imported(path) if name.startswith("aloha_runtime.processes") and ".table." not in name
        ]
        assert not siblings, f"{path.name} imports {siblings}"


def test_torch_stays_in_its_room() -> None:
    for path in FILES:
        uses_torch = any(name.split(".")[0] in ("torch", "torchvision") for name in imported(path))
        assert not uses_torch or room_of(path) == "act", f"{path.relative_to(PACKAGE)} imports torch"


def test_hardware_and_control_know_no_bus() -> None:
    for path in [*(PACKAGE / "hardware").glob("*.py"), *(PACKAGE / "control").glob("*.py")]:
        assert own_rooms(path).isdisjoint({"bus", "rings", "service"}), path


def test_control_is_pure() -> None:
    """Time is an argument there: no clock, no socket, no thread."""
    for path in (PACKAGE / "control").glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert roots.isdisjoint({"time", "socket", "zmq", "threading", "subprocess", "os", "asyncio"}), path


def test_no_call_that_runs_what_it_reads() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            if isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, where
            if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                assert (node.func.value.id, node.func.attr) not in FORBIDDEN_ATTRIBUTES, where
            shell = [word for word in node.keywords if word.arg == "shell"]
            assert not any(isinstance(word.value, ast.Constant) and word.value.value for word in shell), where


def test_pickles_are_taken_apart_in_one_file_and_run_in_none() -> None:
    for path in FILES:
        roots = {name.split(".")[0] for name in imported(path)}
        assert roots.isdisjoint({"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}), path
        assert "pickletools" not in roots or path == PACKAGE / "act" / "pickled.py", path


@pytest.mark.parametrize("module", ["arms", "camera", "teleop", "supervisor"])
def test_light_processes_load_no_heavy_library(module: str) -> None:
    """Arms and cameras stay small: neither torch nor MuJoCo comes in through an import."""
    heavy = ("torch", "mujoco", "cv2")
    code = f"import sys, aloha_runtime.processes.{module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_wall_time_is_asked_for_where_people_read_it_alone() -> None:
    """Somebody may set the clock of the machine at any moment: nothing else may go by it."""
    asked = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and (getattr(node.value, "id", ""), node.attr) in WALL_TIME
    }
    assert asked == set(FOR_PEOPLE)
