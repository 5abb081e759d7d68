"""The BLAS that NumPy multiplies with, for programs that call it themselves."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import NamedTuple

import numpy as np

from gpumlp import threads

# NumPy's wheels bring an OpenBLAS whose names say so; 64_ ends those of 64-bit integers.
NAMES = {
    "scipy_cblas_{}gemm64_": "long long",
    "scipy_cblas_{}gemm": "int",
    "cblas_{}gemm64_": "long long",
    "cblas_{}gemm": "int",
}
LETTER = {"float32": "s", "float64": "d"}


class Product(NamedTuple):
    address: int
    integer: str  # of its interface, in C


@functools.cache
def product(dtype: str) -> Product | None:
    """cblas_sgemm or cblas_dgemm, of the library that NumPy has loaded; None where it is unknown.

    Not that of another package which is loaded too: each has threads of its own, which would wait
    for one another's cores.
    """
    libraries = [
        found for found in threads.controller().lib_controllers if found.user_api == "blas"
    ]
    numpy = os.path.realpath(os.path.dirname(np.__file__))  # beside it numpy.libs, or .dylibs in it
    own = [found for found in libraries if os.path.realpath(found.filepath).startswith(numpy)]
    for found in own or (libraries if len(libraries) == 1 else []):
        for name, integer in NAMES.items():
            function = getattr(found.dynlib, name.format(LETTER[dtype]), None)
            if function is not None:
                address = ctypes.cast(function, ctypes.c_void_p).value
                assert address is not None
                return Product(address, integer)
    return None
