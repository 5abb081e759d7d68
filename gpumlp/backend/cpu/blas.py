"""The BLAS that NumPy multiplies with, for programs that call it and limits of its threads.

threadpoolctl finds it, but it obeys only the first Python thread that limits those of OpenBLAS.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Around the names of its functions, and its integers in C.  NumPy's wheels bring an OpenBLAS of
# their own; 64_ ends the names of one with 64-bit integers.
AFFIXES = (
    ("scipy_", "64_", "long long"),
    ("scipy_", "", "int"),
    ("", "64_", "long long"),
    ("", "", "int"),
)
LETTERS = {"float32": "s", "float64": "d"}


class Threads(NamedTuple):
    """How many multiply in each product, of whichever thread of the process."""

    get: Callable[[], int]
    set: Callable[[int], None]


class Blas(NamedTuple):
    """gemm: the addresses of cblas_sgemm and cblas_dgemm, by dtype;  integer: their integers, in C;
    threads: None where they cannot be told and set, or each thread has a number of its own."""

    gemm: dict[str, int]
    integer: str
    threads: Threads | None


@functools.cache
def controller():
    """Made once: looking for the libraries takes longer than many a short fit."""
    from threadpoolctl import ThreadpoolController  # with scikit-learn

    return ThreadpoolController()


@functools.cache
def find() -> Blas | None:
    """That of the library that NumPy has loaded; None where it is unknown.

    Not that of another package which is loaded too: each has threads of its own, which would wait
    for one another's cores.
    """
    libraries = [each for each in controller().lib_controllers if each.user_api == "blas"]
    # Beside NumPy's folder lies numpy.libs, or in it .dylibs.
    numpy = os.path.dirname(os.path.realpath(np.__file__))
    own = [each for each in libraries if os.path.realpath(each.filepath).startswith(numpy)]
    for each in own or (libraries if len(libraries) == 1 else []):
        for prefix, suffix, integer in AFFIXES:
            gemm = {
                dtype: _address(each.dynlib, f"{prefix}cblas_{letter}gemm{suffix}")
                for dtype, letter in LETTERS.items()
            }
            if all(gemm.values()):
                return Blas(gemm, integer, _threads(each, prefix, suffix))
    return None


def _address(library, name: str) -> int:
    function = getattr(library, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


def _threads(found, prefix: str, suffix: str) -> Threads | None:
    # With OpenMP each thread has a number of its own; of other BLAS nothing is known.
    if found.internal_api != "openblas" or found.threading_layer != "pthreads":
        return None
    get_threads = getattr(found.dynlib, f"{prefix}openblas_get_num_threads{suffix}", None)
    set_threads = getattr(found.dynlib, f"{prefix}openblas_set_num_threads{suffix}", None)
    if get_threads is None or set_threads is None:
        return None
    set_threads.restype = None
    return Threads(get_threads, set_threads)
