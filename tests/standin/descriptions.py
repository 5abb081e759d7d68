"""What cuBLASLt is told and what it proposes: attributes and structures, as cublasLt.h has them."""

from __future__ import annotations

import ctypes
import dataclasses
from ctypes import c_float, c_int, c_size_t, c_uint64
from typing import NamedTuple

import numpy as np

R_32F, R_64F, R_16BF = 0, 1, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
DTYPES = {R_32F: np.float32, R_64F: np.float64, R_16BF: np.uint16}

# (how it is computed, type of alpha and beta): the types of A and B, and of C and D.
SUPPORTED = {
    (COMPUTE_32F, R_32F): {(R_32F, R_32F), (R_16BF, R_16BF), (R_16BF, R_32F)},
    (COMPUTE_32F_FAST_TF32, R_32F): {(R_32F, R_32F)},
    (COMPUTE_64F, R_64F): {(R_64F, R_64F)},
}

# Attributes: number -> (name, bytes).
DESCRIPTION = {3: ("transa", 4), 4: ("transb", 4)}
LAYOUT = {5: ("batch", 4), 6: ("stride", 8)}
PREFERENCE = {
    1: ("workspace", 8),
    3: ("reductions", 4),
    5: ("alignment_a", 4),
    6: ("alignment_b", 4),
    7: ("alignment_c", 4),
    8: ("alignment_d", 4),
}
ALGORITHMS = 10
ROUNDS_PARTS = 5  # the algorithm that adds up parts which were rounded to the output's type
MAGIC = 0xC0B1A5


@dataclasses.dataclass
class Description:
    compute: int
    scale: int
    transa: int = 0
    transb: int = 0


@dataclasses.dataclass
class Layout:
    type: int
    rows: int
    columns: int
    leading: int
    batch: int = 1
    stride: int = 0


@dataclasses.dataclass
class Preference:
    workspace: int = 0
    reductions: int = 7
    alignment_a: int = 256
    alignment_b: int = 256
    alignment_c: int = 256
    alignment_d: int = 256


class Problem(NamedTuple):
    description: Description
    a: Layout
    b: Layout
    d: Layout


class Algorithm(ctypes.Structure):
    _fields_ = [
        ("magic", c_uint64),
        ("number", c_uint64),
        ("alignments", c_uint64 * 3),  # that it relies on, of A, B, D
        ("unused", c_uint64 * 3),
    ]

    @property
    def reduction(self) -> int:
        """How it keeps the parts of a sum: one as the output's type, 4, the others not at all."""
        return 4 if self.number == ROUNDS_PARTS else 0

    def workspace(self, problem: Problem) -> int:
        """Bytes; a wider D needs more, and some algorithms need none."""
        return 0 if self.number % 4 == 3 else 64 * (self.number + 1) + 4 * problem.d.rows


class Result(ctypes.Structure):
    _fields_ = [
        ("algo", Algorithm),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]
