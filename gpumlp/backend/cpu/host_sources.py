"""The C++ programs for the CPU: structs of kernels/shared in loops of kernels/cpu."""

from __future__ import annotations

from gpumlp.backend import sources
from gpumlp.backend.sources import REAL, SOURCE
from gpumlp.functions.activation import Activation
from gpumlp.functions.loss import Form

SUFFIXES = (".hpp", ".cuh", ".cpp")


def _program(dtype: str, *texts: str) -> str:
    head = [f"#define Real {REAL[dtype]}", sources.text("host.hpp")]
    return "\n".join(
        [*head, *(sources.text(text) if text.endswith(SUFFIXES) else text for text in texts), ""]
    )


def layer(dtype: str, f: Activation) -> str:
    """Functions `activate` and `backprop` of a built-in activation."""
    definitions = [f"typedef {f.cuda} Activation;", *sources.traits(f)]
    return _program(dtype, "philox.cuh", "activations.cuh", "\n".join(definitions), "layer.cpp")


def scale(dtype: str) -> str:
    """Functions `scale` and `scale_gradient`."""
    return _program(dtype, "scale.cpp")


def loss(dtype: str, form: Form, rows: bool, log_u: bool) -> str:
    """Function `loss` of a form whose CUDA side is a struct."""
    return _program(
        dtype,
        "losses.cuh",
        f"typedef {form.cuda} Form;",
        sources.flag("ROWS", rows),
        sources.flag("LOG_U", log_u),
        "rows.hpp",
        "losses.cpp",
    )


def rows(dtype: str) -> str:
    """Function `activate_rows`: softmax and log_softmax."""
    return _program(dtype, "rows.hpp", "rows.cpp")


def gemm(dtype: str, integer: str) -> str:
    """Function `gemm`, by a BLAS of these integers."""
    return _program(dtype, f"typedef {integer} BlasInt;", "gemm.cpp")


def few_rows(dtype: str) -> str:
    """Function `few_rows`: products of few rows by a transposed matrix."""
    return _program(dtype, "few_rows.cpp")


def sequence() -> str:
    """Function `run`, which makes the calls of a sequence."""
    return sources.text("sequence.cpp")


def prepare_update(dtype: str) -> str:
    """Functions `prepare_update` and `add_up`."""
    return _program(dtype, sources.columns(), "step.cuh", "prepare_update.cpp")


def update(dtype: str, family: str, used: tuple[bool, ...]) -> str:
    """Function `update` of an optimiser that uses these of its state buffers."""
    return _program(dtype, *sources.update_rule(family, used), "update.cpp")


def gather(dtype: str, source: str) -> str:
    """Function `gather` from data of one type."""
    return _program(dtype, f"typedef {SOURCE[source]} Source;", "gather.cpp")


def shuffle() -> str:
    """Function `shuffle_keys`."""
    return _program("float32", "philox.cuh", "shuffle.cpp")
