"""Check the arguments of an MLP, and convert them to the form that a network takes."""

from __future__ import annotations

import numpy as np

from gpumlp.functions import activation
from gpumlp.utils import checks

PRECISIONS = ("float32", "tf32", "bf16")


def dtype_of(dtype) -> np.dtype:
    """float32 or float64; raises ParameterError for anything else."""
    try:
        real = None if dtype is None else np.dtype(dtype)
    except TypeError:
        real = None
    if real not in (np.float32, np.float64):
        raise checks.ParameterError(f"dtype = {checks.shown(dtype)} must be 'float32' or 'float64'")
    return real


def precision_of(precision, dtype) -> str:
    """The precision; raises ValueError unless it exists for the dtype."""
    checks.choice(precision, "precision", PRECISIONS)
    if precision != "float32" and dtype != np.float32:
        raise ValueError(f'precision = {precision!r} is for dtype="float32", not {dtype}')
    return precision


def sizes_of(sizes) -> tuple[int, ...]:
    """N_0, ..., N_K; raises ParameterError unless they are two counts or more."""
    widths = checks.items(sizes) or []
    if len(widths) < 2:
        wanted = "N_0, ..., N_K, two numbers or more, such as (784, 256, 10)"
        raise checks.ParameterError(f"sizes = {checks.shown(sizes)} must be {wanted}")
    return tuple(checks.number(N, f"sizes[{k}]", checks.COUNT) for k, N in enumerate(widths))


def activations_of(hidden, output, K) -> list:
    """The activations of layers 1..K; hidden: one, or one for each hidden layer."""
    several = checks.items(hidden)
    names = [hidden] * (K - 1) if several is None else several
    functions = [activation.find(f, "hidden") for f in names]
    if len(functions) != K - 1:
        raise ValueError(
            f"hidden = {checks.shown(functions)} has {len(functions)} activations for {K - 1} "
            "hidden layers"
        )
    if several is None:
        activation.find(hidden, "hidden")  # also where there is no hidden layer
    for f in functions:
        if f.rows:
            raise ValueError(f"hidden = {f.name!r} acts on whole rows; it can only be the output")
    return [*functions, activation.find(output, "output")]


def scaled_of(scale, K) -> tuple[bool, ...]:
    """Whether each of layers 0..K has a scale; empty where none has."""
    several = checks.items(scale)
    flags = [scale] * K if several is None else several
    if len(flags) != K:
        raise checks.ParameterError(
            f"scale = {checks.shown(scale)} has {len(flags)} values for {K} layers"
        )
    scaled = (False, *(checks.flag(one, "scale") for one in flags))
    return scaled if any(scaled) else ()


MOST_COLUMNS = 2**31 - 1  # of sparse rows, whose columns are int32


def sparse_of(sparse, scaled: tuple[bool, ...], features: int) -> bool:
    """Whether x is sparse; its features take no scale, and an int32 can number them."""
    sparse = checks.flag(sparse, "sparse")
    if sparse and features > MOST_COLUMNS:
        raise checks.ParameterError(
            f"sizes[0] = {features}: with sparse=True there are at most {MOST_COLUMNS} features"
        )
    if sparse and scaled and scaled[1]:
        raise checks.ParameterError(
            "scale = True: the first layer's inputs have none with sparse=True; give a bool for "
            "each layer, False for the first"
        )
    return sparse


def per_layer(dropout, K) -> list:
    """The dropout of layers 0..K; 0 at the input and the output."""
    if not isinstance(dropout, list | tuple) and np.ndim(dropout) == 0:
        dropout = [dropout] * (K - 1)
    if len(dropout) != K - 1:
        raise ValueError(
            f"dropout = {checks.shown(dropout)} has {len(dropout)} rates for {K - 1} hidden layers"
        )
    return [0.0, *dropout, 0.0]


def dropout_rates(dropout, K, M) -> list[np.ndarray]:
    """The dropout rate of each of layers 0..K, () or (M,)."""
    return [
        checks.per_network(rate, "dropout", checks.FRACTION, M) for rate in per_layer(dropout, K)
    ]


def threshold(rate: np.ndarray, M: int) -> np.ndarray:
    """The 32-bit numbers (M,) below which a unit is dropped."""
    bits = np.minimum(np.rint(rate * 2**32), 2**32 - 1)
    return np.broadcast_to(bits, (M,)).astype(np.uint32)
