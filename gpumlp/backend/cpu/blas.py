"""Find the BLAS that NumPy multiplies with, to call it and to limit its threads.

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
# Forward products of so few rows are shared by columns among threads of our own, if BLAS has one:
# its own threads wait for one another longer.
SHARED_ROWS = 64
LETTERS = {"float32": "s", "float64": "d"}


class Threads(NamedTuple):
    """Get and set the number of threads in each product, for the whole process."""

    get: Callable[[], int]
    set: Callable[[int], None]


class Blas(NamedTuple):
    """A BLAS; gemm: addresses of cblas_sgemm and cblas_dgemm, by dtype;  integer: theirs, in C;
    threads: None where their number cannot be set, or holds for one Python thread only."""

    gemm: dict[str, int]
    integer: str
    threads: Threads | None


@functools.cache
def controller():
    """threadpoolctl's controller, made once, as looking for libraries takes long."""
    from threadpoolctl import ThreadpoolController  # with scikit-learn

    return ThreadpoolController()


@functools.cache
def find() -> Blas | None:
    """The BLAS that NumPy has loaded; None where it is unknown.

    Another package may have loaded one, too; its threads would wait for the cores of NumPy's.
    """
    libraries = [lib for lib in controller().lib_controllers if lib.user_api == "blas"]
    # Beside NumPy's folder lies numpy.libs, or in it .dylibs.
    numpy = os.path.dirname(os.path.realpath(np.__file__))
    of_numpy = [lib for lib in libraries if os.path.realpath(lib.filepath).startswith(numpy)]
    for lib in of_numpy or (libraries if len(libraries) == 1 else []):
        for prefix, suffix, integer in AFFIXES:
            gemm = {
                dtype: _address(lib.dynlib, f"{prefix}cblas_{letter}gemm{suffix}")
                for dtype, letter in LETTERS.items()
            }
            if all(gemm.values()):
                return Blas(gemm, integer, _threads(lib, prefix, suffix))
    return None


def has_one_thread() -> bool:
    """Whether it is known that BLAS has one thread at this time."""
    known = find()
    return known is not None and known.threads is not None and known.threads.get() == 1


def _address(library, name: str) -> int:
    function = getattr(library, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


def _threads(library, prefix: str, suffix: str) -> Threads | None:
    # With OpenMP each thread has a number of its own; of other BLAS nothing is known.
    if library.internal_api != "openblas" or library.threading_layer != "pthreads":
        return None
    get_threads = getattr(library.dynlib, f"{prefix}openblas_get_num_threads{suffix}", None)
    set_threads = getattr(library.dynlib, f"{prefix}openblas_set_num_threads{suffix}", None)
    if get_threads is None or set_threads is None:
        return None
    set_threads.restype = None
    return Threads(get_threads, set_threads)
