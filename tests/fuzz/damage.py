"""Damages of files: of their bytes, and of what the bytes say, under a digest that fits it."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from gpumlp.io.files import WRONG, _digest


class Content(NamedTuple):
    """Of a file: the arrays, the description, and the dtypes that are said to be others."""

    arrays: dict[str, np.ndarray]
    about: Any
    dtypes: dict[str, str]


# What JSON can hold and Python cannot write: it stands in the description as a text.
RAW = {
    "\0deep lists": "[" * 100_000 + "]" * 100_000,
    "\0deep objects": '{"dict":' * 100_000 + "1" + "}" * 100_000,
    "\0huge": "1e999",
    "\0minus huge": "-1e999",
    "\0many digits": "9" * 5000,
    "\0surrogate": '"\\ud800"',
}
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 624, 625, 10**9, 2**31 - 1, 2**31, 2**53, 2**53 + 1),
    *(2**63, 2**64, 2**64 - 1, -(2**63) - 1, 10**400, 0.0, 0.5, -0.5, 1e-300, 1e300, 1.5),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "__class__", "../../x", "no\0", "9" * 99),
    *([], {}, [[]], [None], [0], [1, 2], {"x": 1}, {"tuple": []}, {"dict": [[], []]}),
    *RAW,
]

_NAMES = {np.dtype(t): n for t, n in zip(
    "?bhilBHILefd", "BOOL I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64".split(), strict=True
)}  # fmt: skip
FOREIGN = ["BF16", "F8_E4M3", "F8_E5M2", "C64", "F4", "I128", "x"]


def read(path) -> Content:
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["gpumlp"])
        return Content({name: file.get_tensor(name) for name in file.keys()}, about, {})


def to_bytes(content: Content, header_change=None) -> bytes:
    """The file, with a digest that fits; header_change: of safetensors' own description."""
    about = copy.deepcopy(content.about)
    if isinstance(about, dict):
        about["digest"] = "\0digest"
    text = json.dumps(about)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    try:
        digest = _digest(content.arrays, json.loads(text))
    except (*WRONG, MemoryError):
        digest = ""
    text = text.replace(json.dumps("\0digest"), json.dumps(digest))
    header: dict[str, Any] = {"__metadata__": {"gpumlp": text}}
    data = b""
    for name, array in content.arrays.items():
        held = array.tobytes()
        header[name] = {
            "dtype": content.dtypes.get(name, _NAMES.get(array.dtype)),
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(held)],
        }
        data += held
    if header_change is not None:
        header_change(header)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


# ---------------------------------------------------------------- what the bytes say
def places(value, found=None) -> list[tuple[Any, Any]]:
    """Each container in it, and each of its keys or positions."""
    found = [] if found is None else found
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            places(value[key], found)
    return found


def replacement(random, old, pool: list) -> Any:
    """pool: values of other files."""
    match random.integers(8):
        case 0 | 1 | 2:
            return copy.deepcopy(_any(random, VALUES))
        case 3 | 4:
            return copy.deepcopy(_any(random, pool))
        case 5:
            return [old]
        case 6 if isinstance(old, list):
            return old[:-1] if random.integers(2) else old * int(random.integers(2, 5))
        case 6 if isinstance(old, int | float):
            return old + int(random.choice([-1, 1, 1000]))
        case 7 if isinstance(old, str | int):
            return str(old)
    return {"array": old} if random.integers(2) else {"tuple": [old]}


def change_value(random, about, pool: list) -> None:
    container, key = _any(random, places(about))
    match random.integers(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            name = _any(random, [k for c, k in places(about) if isinstance(k, str)])
            container[name] = replacement(random, container[key], pool)
        case 1:
            container.insert(key, copy.deepcopy(container[key]))
        case _:
            container[key] = replacement(random, container[key], pool)


def change_array(random, content: Content) -> None:
    """One of them becomes another, changes places with another, or is no longer there."""
    arrays = content.arrays
    if not arrays:
        return
    name = _any(random, list(arrays))
    array = arrays[name]
    match random.integers(9):
        case 0:
            content.dtypes[name] = _any(random, FOREIGN)
        case 1:
            del arrays[name]
        case 2:
            other = _any(random, list(arrays))
            arrays[name], arrays[other] = arrays[other], arrays[name]
        case 3:
            with np.errstate(all="ignore"):
                arrays[name] = array.astype(_any(random, list(_NAMES)))
        case 4:
            shapes = [array.reshape(-1), array[None], array[..., None], array.T.copy()]
            shapes += [array[:0], array[1:], np.concatenate([array, array])] if array.ndim else []
            arrays[name] = _any(random, shapes)
        case _:
            arrays[name] = with_value(random, array)


def with_value(random, array: np.ndarray) -> np.ndarray:
    """One number in it, or all of them, another."""
    ends = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
    floats = [np.nan, np.inf, -np.inf, 0.0, -1.0, 30.0]
    values = [ends.min, ends.max, 0, 1, 624, 10**4] if ends else floats
    found = array.copy()
    with np.errstate(all="ignore"):
        value = np.array(_any(random, values)).astype(array.dtype)
    found[... if random.integers(4) == 0 or not found.size else _index(random, found)] = value
    return found


def _index(random, array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(random.integers(size)) for size in array.shape)


def _any(random, values: list) -> Any:
    return values[random.integers(len(values))]


def structured(random, content: Content, pool: list) -> bytes:
    """A file with one to three such damages."""
    changed = Content(dict(content.arrays), copy.deepcopy(content.about), {})
    header_change = None
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        match random.integers(20):
            case 0:
                header_change = lambda header: change_value(random, header, pool)  # noqa: E731
            case 1 | 2 | 3 | 4 | 5:
                change_array(random, changed)
            case _:
                change_value(random, changed.about, pool)
    return to_bytes(changed, header_change)


# ---------------------------------------------------------------- bytes
def of_bytes(random, content: bytes, other: bytes) -> bytes:
    """Bits turned, an end cut off, a piece left out or said twice, or a piece of another file."""
    damaged = bytearray(content)
    at, to = sorted(int(place) for place in random.integers(len(content), size=2))
    match random.integers(6):
        case 0 | 1:
            for place in random.integers(len(content), size=random.integers(1, 9)):
                damaged[place] ^= 1 << int(random.integers(8))
        case 2:
            del damaged[at:]
        case 3:
            del damaged[at:to]
        case 4:
            damaged[at:at] = content[at:to]
        case 5:
            damaged[at:to] = other[at:to]
    return bytes(damaged)
