"""Describe a product of arrays to cuBLASLt, and choose the algorithm that computes it.

That is the library's own first proposal or, where users ask for it, the fastest of the first few.

The first proposal is always the same one.  The fastest is found by trying, so that two runs may
choose, and round, differently: a choice is therefore kept, in a file of the user's for each GPU
and library version, and in checkpoints.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from pathlib import Path

import cupy as cp

from gpumlp.backend.cuda import cublaslt, faults, graphs
from gpumlp.backend.cuda.cublaslt import Gemm, Plan
from gpumlp.utils import cache

CANDIDATES = 8
CALLS, ROUNDS = 10, 3  # of each candidate; the calls of a round are timed together


# dtypes of a, b and out: the types of both operands and of the product, and how it is computed.
# uint16 holds the bits of bfloat16.
TYPES = {
    ("float32", "float32", "float32"): (cublaslt.R_32F, cublaslt.R_32F, cublaslt.COMPUTE_32F),
    ("float64", "float64", "float64"): (cublaslt.R_64F, cublaslt.R_64F, cublaslt.COMPUTE_64F),
    ("uint16", "uint16", "uint16"): (cublaslt.R_16BF, cublaslt.R_16BF, cublaslt.COMPUTE_32F),
    ("uint16", "uint16", "float32"): (cublaslt.R_16BF, cublaslt.R_32F, cublaslt.COMPUTE_32F),
}


def row_major(a, b, out, ta, tb, alpha, beta, precision) -> Gemm:
    """Describe out <- alpha op(a) op(b) + beta out by columns.

    Read by columns, memory that holds a by rows holds a^T, and out^T = op(b)^T op(a)^T: so A is b,
    and B is a.  With precision "tf32", float32 may
    be rounded to 10 bits of mantissa before it is multiplied.
    """
    dtypes = str(a.dtype), str(b.dtype), str(out.dtype)
    if dtypes not in TYPES:
        raise TypeError("no product of {} and {} into {}".format(*dtypes))
    type_ab, type_d, compute = TYPES[dtypes]
    if precision == "tf32" and type_ab == cublaslt.R_32F:
        compute = cublaslt.COMPUTE_32F_FAST_TF32
    batch, rows, columns = out.shape
    return Gemm(
        m=columns,
        n=rows,
        k=a.shape[1] if ta else a.shape[2],
        transa=cublaslt.OP_T if tb else cublaslt.OP_N,
        transb=cublaslt.OP_T if ta else cublaslt.OP_N,
        lda=b.shape[2],
        ldb=a.shape[2],
        ldd=columns,
        batch=batch,
        stride_a=_stride(b),
        stride_b=_stride(a),
        stride_d=_stride(out),
        type_ab=type_ab,
        type_d=type_d,
        compute=compute,
        alpha=float(alpha),
        beta=float(beta),
        alignment_a=_alignment(b),
        alignment_b=_alignment(a),
        alignment_d=_alignment(out),
    )


def _stride(array) -> int:
    """Elements from matrix to matrix; 0 if there is one for all."""
    return 0 if len(array) == 1 else array.strides[0] // array.itemsize


def _alignment(array) -> int:
    """The power of two that divides the address, as far as it matters."""
    return min(array.data.ptr & -array.data.ptr, cublaslt.ALIGNMENT)


class Choices:
    """Chooses the algorithms of one network on one device, which must be the current one."""

    def __init__(self, device: int):
        self._device = device
        self._chosen: dict[str, bytes] = {}  # the algorithm of each shape
        self._kept: dict[str, str] | None = None  # what the file holds

    # ------------------------------------------------------------ for checkpoints
    def export(self) -> dict:
        """All choices that are not the library's own, for JSON."""
        if not self._chosen:
            return {}
        chosen = {shape: algorithm.hex() for shape, algorithm in self._chosen.items()}
        return {**self._machine(), "algorithms": chosen}

    def load_algorithms(self, algorithms: dict) -> None:
        """Take what `export` returned; from another GPU or library version it is ignored."""
        if algorithms and all(
            algorithms.get(name) == value for name, value in self._machine().items()
        ):
            for shape, text in algorithms["algorithms"].items():
                if algorithm := _algorithm(text):
                    self._chosen[shape] = algorithm

    def _machine(self) -> dict:
        name = cp.cuda.runtime.getDeviceProperties(self._device)["name"].decode()
        return {"gpu": name, "cublaslt": cublaslt.library().cublasLtGetVersion()}

    # ------------------------------------------------------------ choosing
    def plan(self, gemm: Gemm, tune: bool, a: int, b: int, d: int) -> Plan:
        """The plan for a product of what lies at these addresses, none of which is written to.

        Nothing can be timed while the stream is capturing: then it is the library's proposal.
        """
        shape = _text(gemm)
        plan = self._usable(gemm, self._chosen.get(shape))
        if plan is None and tune:
            plan = self._usable(gemm, _algorithm(self._file().get(shape)))
            if plan is None and not cp.cuda.get_current_stream().is_capturing():
                plan = self._fastest(gemm, shape, a, b, d)
            if plan is not None:
                self._chosen[shape] = plan.algorithm
        return plan or cublaslt.plan(self._device, gemm)

    def _usable(self, gemm: Gemm, algorithm: bytes | None) -> Plan | None:
        """The plan with an algorithm that was kept, if the library accepts it."""
        if algorithm is not None:
            with contextlib.suppress(cublaslt.CublasError):
                return cublaslt.plan(self._device, gemm, algorithm)
        return None

    def _fastest(self, gemm: Gemm, shape: str, a: int, b: int, d: int) -> Plan:
        """The candidate that takes the least time, which is kept in the file; where memory is too
        small to try them, the library's proposal, which is not kept."""
        plans = cublaslt.plans(self._device, gemm, CANDIDATES)
        try:
            times = _times(plans, gemm, a, b, d) if len(plans) > 1 else {}
        except Exception as error:
            if not faults.is_out_of_memory(error):
                raise
            return plans[0]
        if not times and len(plans) > 1:  # all have failed: nothing has been found out
            return plans[0]
        fastest = min(times, key=times.__getitem__, default=plans[0])
        self._keep(shape, fastest.algorithm)
        return fastest

    # ------------------------------------------------------------ the user's file
    def _path(self) -> Path:
        """The file's path; raises OSError or RuntimeError where there is no folder for it."""
        gpu, version = self._machine().values()
        name = re.sub(r"\W+", "-", gpu)
        return cache.folder("gemm") / f"{name}-{version}.json"

    def _file(self) -> dict[str, str]:
        if self._kept is None:
            self._kept = self._read()
        return self._kept

    def _read(self) -> dict[str, str]:
        """The file's choices; none if it cannot be read, which only costs time."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            kept = json.loads(cache.read(self._path()))
            if isinstance(kept, dict):
                return kept
        return {}

    def _keep(self, shape: str, algorithm: bytes) -> None:
        """Add a choice to the file, if it can be written."""
        self._kept = {**self._read(), shape: algorithm.hex()}
        with contextlib.suppress(OSError, RuntimeError):
            cache.keep(self._path(), json.dumps(self._kept, indent=0).encode())


def _times(plans: list[Plan], gemm: Gemm, a: int, b: int, d: int) -> dict[Plan, float]:
    """Milliseconds of CALLS calls of each plan, on A and B and on a D of its own with the
    alignment of d; plans that fail are left out."""
    itemsize = {cublaslt.R_16BF: 2, cublaslt.R_32F: 4, cublaslt.R_64F: 8}[gemm.type_d]
    elements = gemm.stride_d * (gemm.batch - 1) + gemm.ldd * gemm.n
    offset = d % cublaslt.ALIGNMENT
    product = cp.empty(offset + elements * itemsize, "uint8")
    workspace = cp.empty(max(1, *(plan.workspace for plan in plans)), "uint8")
    arguments = a, b, product.data.ptr + offset, workspace.data.ptr
    cp.cuda.get_current_stream().synchronize()  # the operands may still be on their way

    with cp.cuda.Stream(non_blocking=True) as stream:
        try:
            return _times_on(stream, plans, arguments)
        finally:
            stream.synchronize()  # a candidate that failed may still write to memory that goes now


def _times_on(stream, plans: list[Plan], arguments: tuple[int, int, int, int]) -> dict[Plan, float]:
    captured = {}
    for plan in plans:
        with _left_out_if_it_fails():
            plan(*arguments, stream.ptr)  # loads the algorithm's kernels
            calls = functools.partial(_calls, plan, arguments, stream.ptr)
            captured[plan] = graphs.record(calls, stream)
    times: dict[Plan, float] = dict.fromkeys(captured, float("inf"))
    start, end = cp.cuda.Event(), cp.cuda.Event()
    for _ in range(ROUNDS):
        for plan, graph in captured.items():
            start.record(stream)
            graph.launch(stream)
            end.record(stream)
            end.synchronize()
            times[plan] = min(times[plan], cp.cuda.get_elapsed_time(start, end))
    return times


def _calls(plan: Plan, arguments: tuple[int, int, int, int], stream: int) -> None:
    """Make the same call CALLS times; in a graph, so that Python's time is not measured."""
    for _ in range(CALLS):
        plan(*arguments, stream)


@contextlib.contextmanager
def _left_out_if_it_fails():
    """A context that drops a candidate that fails; out of memory, which says nothing about it, is
    raised."""
    try:
        yield
    except (cublaslt.CublasError, cp.cuda.runtime.CUDARuntimeError) as error:
        if faults.is_out_of_memory(error):
            raise


def _text(gemm: Gemm) -> str:
    known = {**gemm._asdict(), "reductions": gemm.reductions}
    return " ".join(f"{name}={value}" for name, value in known.items())


def _algorithm(text: object) -> bytes | None:
    """The algorithm from its hexadecimal digits; None if they are none."""
    with contextlib.suppress(TypeError, ValueError):
        algorithm = bytes.fromhex(text)  # type: ignore[arg-type]
        if len(algorithm) == cublaslt.ALGORITHM_BYTES:
            return algorithm
    return None
