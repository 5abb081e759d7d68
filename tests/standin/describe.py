"""Parameter lists of Python and Cython functions, and what an expression comes to.

The contract test describes the stand-in and the real CuPy with the same functions. Run as
`python -m tests.standin.describe`, with a JSON request on standard input, this describes the
real CuPy on standard output; nothing here installs the stand-in.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import pathlib
import re
import sys
import warnings

import numpy as np

SIGNATURE = re.compile(r"^[\w.]+\((.*)\)(?: ->.*)?$")


def parameters(function: object) -> dict[str, list[str]] | None:
    """{"positional": [...], "keyword": [...]}, without self; None where nothing tells.

    Cython's functions say their parameters in the first lines of their docstring.
    """
    try:
        listed = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return _from_docstring(getattr(function, "__doc__", None))
    positional = [p.name for p in listed if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keyword = [p.name for p in listed if p.kind is p.KEYWORD_ONLY]
    return _without_self(positional, keyword)


def _from_docstring(text: str | None) -> dict[str, list[str]] | None:
    lines = [line.strip().replace("\\*", "*") for line in (text or "").splitlines()]
    # RawKernel.__call__ has two such lines, and the second one spells out **kwargs.
    found = [match[1] for match in map(SIGNATURE.match, lines) if match and "**" not in match[1]]
    return from_text(found[0]) if found else None


def from_text(inside: str) -> dict[str, list[str]]:
    """The parameters in "intptr_t handle, int n, *, double alpha=1.0"."""
    positional, keyword = [], []
    names = positional
    for part in filter(None, map(str.strip, inside.split(","))):
        if part.startswith("*"):
            names = keyword
        elif part != "/":
            names.append(re.split("[=:]", part)[0].split()[-1])
    return _without_self(positional, keyword)


def _without_self(positional: list[str], keyword: list[str]) -> dict[str, list[str]]:
    if positional[:1] == ["self"]:
        positional = positional[1:]
    return {"positional": positional, "keyword": keyword}


def outcome(expression: str, names: dict[str, object]) -> str:
    """What the expression comes to: the exception's type, an array's layout, or the value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = eval(expression, dict(names))
        except Exception as error:
            return type(error).__name__
    if type(value).__name__ == "ndarray" and not isinstance(value, np.ndarray):
        return f"array {value.shape} {value.strides} {value.dtype}"
    return repr(value)


# ---------------------------------------------------------------------- the real CuPy


def find(path: str) -> object:
    """The object at a dotted path: a module, or an attribute of what comes before."""
    parent, _, name = path.rpartition(".")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not parent or not path.startswith(error.name):
            raise
    return getattr(find(parent), name)


def describe(path: str) -> dict[str, object]:
    try:
        found = find(path)
    except AttributeError:
        return {"exists": False}
    except ImportError as error:
        return {"exists": False, "import_error": str(error)}
    return {"exists": True, "parameters": parameters(found) if callable(found) else None}


def compiled_text(module: str) -> bytes:
    """The bytes of a compiled module, which may need a library that is not installed.

    They hold its functions' signatures and the names that it uses, as plain text.
    """
    parent, _, name = module.rpartition(".")
    folder = pathlib.Path(importlib.util.find_spec(parent).origin).parent
    return b"\0".join(path.read_bytes() for path in sorted(folder.glob(f"{name}.*.so")))


def real_names() -> dict[str, object]:
    """For `outcome`: a CuPy array over host memory, which needs no GPU as long as nothing runs."""
    import cupy

    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    block = cupy.cuda.UnownedMemory(numbers.ctypes.data, numbers.nbytes, numbers, 0)
    pointer = cupy.cuda.MemoryPointer(block, 0)
    x = cupy.ndarray(numbers.shape, numbers.dtype, memptr=pointer)
    return {"cp": cupy, "np": np, "x": x, "h": np.ones((3, 4), np.float32)}


def main() -> None:
    request = json.load(sys.stdin)
    runtime = compiled_text("cupy_backends.cuda.api.runtime")
    names = real_names()
    statuses = names["cp"].cuda.runtime.CUDARuntimeError
    answer = {
        "paths": {path: describe(path) for path in request["paths"]},
        "outcomes": {each: outcome(each, names) for each in request["expressions"]},
        "errors": {status: str(statuses(status)) for status in request["statuses"]},
        "in_runtime": {name: name.encode() in runtime for name in request["in_runtime"]},
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
