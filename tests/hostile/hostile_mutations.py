"""One change of one file of a good input, drawn at random: what a careless or hostile author could have written."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Random = np.random.Generator
DEEP = "@DEEP@"
"""Stands for a list nested 100,000 times, which Python cannot write as JSON."""
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400,
    "", "x", "x" * 20_000, "../../x", "/etc/hostname", "\0", "\ud800", "{", "{0}", "{chunk_index:999999999d}",
    "v3.0", "float32", "video",
    [], [None], [[]], [[1]], [0], [-1], [2**40], [2**40, 2**40, 3], [10**7, 10**7, 3], ["a", 1], [[[[[[[[[[]]]]]]]]]],
    {}, {"a": None}, {"type": None}, {"0": {"0": {}}}, float("nan"), float("inf"), DEEP,
]  # fmt: skip


def mutate(root: Path, random: Random) -> str:
    """Change one file below `root`; returns what was done."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[random.integers(len(files))]
    kinds = [*BY_SUFFIX.get(path.suffix, []), *BY_SUFFIX.get(path.suffix, []), *BY_SUFFIX.get(path.suffix, []), _bytes]
    done = kinds[random.integers(len(kinds))](path, random)
    return f"{path.relative_to(root)}: {done}"


def _pick(values: Any, random: Random) -> Any:
    return values[int(random.integers(len(values)))]


def _bytes(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    kind = _pick(("cut", "flip", "insert", "empty", "zeros", "noise", "gone", "folder", "repeat"), random)
    at = int(random.integers(len(data) + 1))
    if kind == "cut":
        data = data[:at]
    elif kind == "flip":
        for _ in range(int(random.integers(1, 9))):
            if data:
                data[random.integers(len(data))] = random.integers(256)
    elif kind == "insert":
        data[at:at] = random.bytes(int(random.integers(1, 40)))
    elif kind == "zeros":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "noise":
        data = bytearray(random.bytes(200))
    elif kind == "repeat":
        data = data * 3
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.write_bytes(b"" if kind == "empty" else bytes(data))
        path.chmod(0o600)
    return f"{kind} at {at}"


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in inner for found in _places(item, (*place, key)))]


def _changed(document: Any, random: Random) -> tuple[Any, str]:
    place, value = _pick(_places(document), random), _pick(VALUES, random)
    said = f"{'/'.join(map(str, place))} = {str(value)[:40]}"
    if not place:
        return value, said
    holder = document
    for key in place[:-1]:
        holder = holder[key]
    if random.random() < 0.1:
        del holder[place[-1]]
        return document, f"{said.partition(' =')[0]} gone"
    if random.random() < 0.05 and isinstance(holder, dict):
        holder[_pick(("x", "../x", "/x", "", "a/b", "\0", "x" * 3000), random)] = holder.pop(place[-1])
        return document, f"{said.partition(' =')[0]} renamed"
    holder[place[-1]] = value
    return document, said


def _text(document: Any) -> str:
    return json.dumps(document).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


def _json(path: Path, random: Random) -> str:
    document, said = _changed(json.loads(path.read_text()), random)
    path.write_text(_text(document))
    return said


def _lines(path: Path, random: Random) -> str:
    lines = path.read_text().splitlines()
    at = int(random.integers(len(lines)))
    document, said = _changed(json.loads(lines[at]), random)
    lines[at] = _text(document)
    if random.random() < 0.2:
        lines.insert(at, _pick(("", "null", "[]", "{}", "{", lines[at]), random))
    path.write_text("\n".join(lines))
    return f"line {at}: {said}"


def _parquet(path: Path, random: Random) -> str:
    found = pq.read_table(path)
    name, rows = _pick(found.column_names, random), len(found)
    at = found.column_names.index(name)
    fields: dict[str, Callable[[], pa.Array]] = {
        "text": lambda: pa.array(["x"] * rows),
        "nulls": lambda: pa.nulls(rows, found.schema.field(name).type),
        "nothing": lambda: pa.nulls(rows),
        "lists": lambda: pa.array([[1.0, 2.0]] * rows),
        "uneven lists": lambda: pa.array([[1.0] * (index % 3) for index in range(rows)]),
        "nested lists": lambda: pa.array([[[[1]]]] * rows),
        "structs": lambda: pa.array([{"a": 1}] * rows),
        "bytes": lambda: pa.array([b"\xff\xfe"] * rows),
        "booleans": lambda: pa.array([True] * rows),
        "doubles": lambda: pa.array([0.5] * rows),
        "nan": lambda: pa.array([float("nan")] * rows),
        "huge": lambda: pa.array([2**62] * rows),
        "negative": lambda: pa.array([-1] * rows),
        "unsigned": lambda: pa.array([2**64 - 1] * rows, pa.uint64()),
        "dates": lambda: pa.array([0] * rows, pa.timestamp("ns")),
        "dictionary": lambda: pa.array(["a"] * rows).dictionary_encode(),
    }
    kind = _pick((*fields, "gone", "renamed", "twice", "no rows", "reversed", "three times", "no columns"), random)
    if kind in fields:
        made = found.set_column(at, name, fields[kind]())
    elif kind == "gone":
        made = found.drop_columns([name])
    elif kind == "renamed":
        made = found.rename_columns(["other" if column == name else column for column in found.column_names])
    elif kind == "twice":
        made = found.append_column(name, found[name])
    elif kind == "no columns":
        made = found.select([])
    else:
        order = {"no rows": [], "reversed": list(range(rows))[::-1], "three times": list(range(rows)) * 3}[kind]
        made = found.take(pa.array(order, pa.int64()))
    pq.write_table(made, path)
    return f"column {name} {kind}"


def _hdf5(path: Path, random: Random) -> str:
    names = ["observations/qpos", "observations/qvel", "observations/effort", "action", "observations/images/cam_high"]
    name = _pick(names, random)
    shapes = [(), (0, 14), (4,), (4, 13), (4, 14, 2), (3, 14), (2**40, 14), (4, 2**40), (4, 2**31, 2**31, 3), (4, 0)]
    with h5py.File(path, "r+") as file:
        kind = _pick(("gone", "shape", "type", "value", "text", "objects", "group", "compress", "all gone"), random)
        old = file[name][...]
        if kind == "compress":
            value = _pick((True, False, "yes", [], [1, 2], np.nan, b"\xff", h5py.Empty("f")), random)
            file.attrs["compress"] = value
            return f"compress = {value}"
        if kind == "all gone":
            del file["observations"]
            return kind
        del file[name]
        if kind == "shape":
            shape = _pick(shapes, random)
            chunks = tuple(min(size, 64) or 1 for size in shape) if shape and 0 not in shape else None
            file.create_dataset(name, shape, _pick(("f4", "f8", "u1"), random), chunks=chunks)
            kind = f"shape {shape}"
        elif kind == "type":
            dtype = _pick(("f2", "f8", "i8", "u1", "?", "c8", ">f4", "S4"), random)
            with np.errstate(all="ignore"):
                file[name] = old.astype(dtype)
            kind = f"type {dtype}"
        elif kind == "value":
            value = _pick((np.nan, np.inf, -np.inf, 3e38, 255, 0), random)
            with np.errstate(all="ignore"):
                file[name] = np.full(old.shape, value).astype(old.dtype)
            kind = f"all {value}"
        elif kind == "text":
            file[name] = "some text"
        elif kind == "objects":
            rows = file.create_dataset(name, (4,), h5py.vlen_dtype(np.dtype("u1")))
            rows[0] = np.zeros(9, np.uint8)
        elif kind == "group":
            file.create_group(name)
    return f"{name} {kind}"


def _jpeg(path: Path, random: Random) -> str:
    """Frames that claim another size."""
    with h5py.File(path, "r+") as file:
        images = file["observations/images/cam_high"]
        data = images[...]
        at = data[0].tobytes().find(b"\xff\xc0") if data.ndim == 2 else -1
        if at < 0:
            return "no compressed frames"
        height, width = _pick(((20_000, 20_000), (65_535, 65_535), (0, 0), (49, 64), (5000, 5000)), random)
        data[:, at + 5 : at + 9] = np.frombuffer(struct.pack(">HH", height, width), np.uint8)
        images[...] = data
    return f"frames of {width}x{height}"


def _safetensors(path: Path, random: Random) -> str:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    names = [name for name in header if name != "__metadata__"]
    name = _pick(names, random)
    kind = _pick(("header", "header", "type", "values", "values", "renamed", "gone", "shape", "million"), random)
    said = kind
    if kind == "header":
        header, said = _changed(header, random)
    elif kind == "type":
        header[name]["dtype"] = said = _pick(
            ("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL", "F16", "F64", "I64", "X"), random
        )
    elif kind == "values":
        start, end = header[name]["data_offsets"]
        value = _pick((np.nan, -1.0, 0.0, 3e38, -3e38, np.inf, 1e-45), random)
        body[start:end] = np.full((end - start) // 4, value, "<f4").tobytes()
        said = f"all {value}"
    elif kind == "renamed":
        header[_pick(("x", "", "module." + name, "_orig_mod." + name, "x" * 5000, "\0"), random)] = header.pop(name)
    elif kind == "gone":
        del header[name]
    elif kind == "shape":
        header[name]["shape"] = said = _pick(([2**40], [1] * 2000, [0, 2**62], [], [-1], [2**32, 2**32]), random)
    elif kind == "million":
        header = {f"layer.{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(50_000)}
        body = bytearray()
    text = _text(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))
    return f"{name} {said}"


def _settings(path: Path, random: Random) -> str:
    """Numbers of a policy's configuration that would need a machine of another size."""
    document = json.loads(path.read_text())
    keys = [key for key, value in document.items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if not keys:
        return _json(path, random)
    key = _pick(keys, random)
    document[key] = value = _pick((10**6, 10**9, 2**31, 10**18, -1, 0, 0.5, 3, 7, 1e300), random)
    path.write_text(json.dumps(document))
    return f"{key} = {value}"


def _yaml(path: Path, random: Random) -> str:
    lines = path.read_text().splitlines()
    at = int(random.integers(len(lines)))
    key = lines[at].partition(":")[0]
    values = (
        "null", "[]", "{}", "1e400", "-1", "9" * 400, "!!python/object/apply:os.system [id]", "&a [*a]", "*nothing",
        "[" * 3000 + "]" * 3000, "'\\0'", '"\\0"', "2001-99-99", "0x" + "f" * 400, "!!binary x", "? x", ".nan", ".inf",
        "yes", "[[[[1]]]]", "{a: {b: {c: 1}}}", "x" * 20_000, "0o777", "1:1:1", "&b {<<: *b}", "!!set {a, b}",
        '"\\ud800"',
        "- a", "\t", "%", "'a\nb'", '"a\\nb"', "../../x", "/dev/null", "!!float 'x'", "!!timestamp 'x'", "!!omap [a]",
    )  # fmt: skip
    value = _pick(values, random)
    kind = _pick(("value", "value", "value", "key", "line", "bomb", "indent"), random)
    if kind == "value" and ":" in lines[at]:
        lines[at] = f"{key}: {value}"
    elif kind == "key":
        lines[at] = f"{value[:200]}:{lines[at].partition(':')[2]}"
    elif kind == "bomb":
        names = "abcdefghij"
        lines += [f"{n}: &{n} [{', '.join([f'*{names[i - 1]}'] * 10) if i else 'x'}]" for i, n in enumerate(names)]
    elif kind == "indent":
        lines[at] = "   " + lines[at]
    else:
        lines.insert(at, value)
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"line {at} {kind} {value[:30]}"


def _allowed(path: Path, random: Random) -> str:
    lines = path.read_text().splitlines()
    extra = _pick(
        ("x" * 5000, "a b c", "0" * 64, f"{'0' * 64} ../x", "\0", "é", f"{'0' * 64} gpu\r", "# " * 9, *lines), random
    )
    path.write_text("\n".join([*lines * int(random.integers(0, 3)), extra]))
    return f"line {extra[:20]}"


BY_SUFFIX: dict[str, list[Callable[[Path, Random], str]]] = {
    ".json": [_json, _json, _settings],
    ".jsonl": [_lines],
    ".parquet": [_parquet],
    ".hdf5": [_hdf5, _hdf5, _jpeg],
    ".safetensors": [_safetensors],
    ".yaml": [_yaml],
    ".txt": [_allowed],
}
