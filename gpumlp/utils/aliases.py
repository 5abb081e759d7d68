"""The types of arguments that several public modules take.

They are for readers and type checkers: modules import them under `if TYPE_CHECKING:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import ArrayLike

    from gpumlp.functions.activation import Activation
    from gpumlp.functions.loss import Loss
    from gpumlp.functions.schedule import Plateau, Schedule

# An array of NumPy or CuPy.
Array: TypeAlias = Any
# What becomes such an array: lists, arrays of NumPy, CuPy and the like, tensors by DLPack.
Data: TypeAlias = Any
# What becomes features of an estimator: Data, data frames, sparse matrices.
Features: TypeAlias = Any

# The constants of an activation or a loss, each a scalar or an array that broadcasts.
Constants: TypeAlias = "Sequence[Any]"
# One number, or one for each of M networks.
PerNetwork: TypeAlias = "float | Sequence[float] | np.ndarray"

# The name of a built-in, or an object of the user's.
ActivationLike: TypeAlias = "str | Activation"
LossLike: TypeAlias = "str | Loss"
ScheduleLike: TypeAlias = "str | Schedule | Plateau | Callable[[np.ndarray], ArrayLike]"
# draw(rng, fan_out, fan_in) -> W, (fan_out, fan_in)
Draw: TypeAlias = "Callable[[np.random.Generator, int, int], ArrayLike]"

# Of estimators: where random numbers come from, what a sample of a class weighs, what is a score.
RandomState: TypeAlias = "int | np.random.RandomState | np.random.Generator"
ClassWeight: TypeAlias = "str | dict[Any, float] | list[dict[Any, float]]"
Scoring: TypeAlias = "str | Callable[[Any, Any, Any], float]"
