"""The C++ programs for the CPU: structs of kernels/shared in loops of kernels/cpu."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from gpumlp.backend import sources
from gpumlp.backend.cpu.blas import AFFIXES
from gpumlp.backend.sources import REAL, SOURCE
from gpumlp.functions import sklearn_losses
from gpumlp.functions.activation import Activation, activations
from gpumlp.functions.loss import Form, losses, pair
from gpumlp.functions.optimizer import optimizers

SUFFIXES = (".hpp", ".cuh", ".cpp")


def _program(dtype: str, *texts: str) -> str:
    head = [f"#define Real {REAL[dtype]}", *map(sources.text, ("mathematics.hpp", "host.hpp"))]
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


def sparse(dtype: str) -> str:
    """Functions `sparse_product` and `sparse_gradient`."""
    return _program(dtype, "sparse.cuh", "sparse.cpp")


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


def built_in() -> set[str]:
    """All programs that need no function of the user's own: those that wheels carry."""
    texts = {sequence(), shuffle()}
    for dtype in REAL:
        texts |= {scale(dtype), sparse(dtype), rows(dtype), few_rows(dtype), prepare_update(dtype)}
        texts |= {layer(dtype, f) for f in activations.values() if not f.rows}
        texts |= {loss(dtype, *options) for options in _losses()}
        texts |= {gemm(dtype, integer) for _, _, integer in AFFIXES}
        texts |= {gather(dtype, source) for source in SOURCE}
        texts |= {update(dtype, *rule) for rule in _update_rules()}
    return texts


def _losses() -> Iterator[tuple[Form, bool, bool]]:
    """(form, rows, log_u) of each loss with each output that it takes."""
    reported = (
        *(sklearn_losses.squared_error(outputs=2), sklearn_losses.poisson()),
        *(sklearn_losses.log_loss("float64"), sklearn_losses.binary_log_loss("float64")),
    )
    for function, output in itertools.product((*losses.values(), *reported), activations.values()):
        if function.outputs is None or output.name in function.outputs:
            form, _, by_rows, log_u = pair(function, output)
            if isinstance(form.cuda, str):
                yield form, by_rows, log_u


def _update_rules() -> Iterator[tuple[str, tuple[bool, ...]]]:
    """(family, used state buffers) of each optimiser: what only some use may go with any other."""
    for optimizer in optimizers.values():
        kinds = [optimizer(**numbers) for numbers in optimizer.examples.values()]
        buffers = zip(*(kind.state_buffers().values() for kind in kinds), strict=True)
        for used in itertools.product(*map(set, buffers)):
            yield kinds[0].family, used
