"""The table of optimisers: the rules by which (14) and (15) and their descendants move parameters.

The operation `update` of each backend carries a rule out, over the flat buffer of all layers.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpumlp.functions.adam import Adam, AdamW
from gpumlp.functions.lion import Lion
from gpumlp.functions.optimizer_base import HYPERS, Optimizer
from gpumlp.functions.rmsprop import RMSprop
from gpumlp.functions.sgd import SGD

__all__ = [
    "HYPERS",
    "SGD",
    "Adam",
    "AdamW",
    "Lion",
    "Optimizer",
    "RMSprop",
    "examples",
    "optimizers",
]

optimizers = {
    cls.__name__: cls
    for cls in (
        SGD,
        RMSprop,
        Adam,
        AdamW,
        Lion,
    )
}


def examples() -> Iterator[tuple[str, Optimizer]]:
    """(label, optimiser): each class of the table in each of its kinds."""
    for name, cls in optimizers.items():
        for kind, numbers in cls.examples.items():
            yield f"{name}, {kind}" if kind else name, cls(**numbers)
