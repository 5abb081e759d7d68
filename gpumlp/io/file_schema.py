"""The schemas of the JSON in files of networks and trainers, checked before anything is made."""

from __future__ import annotations

from dataclasses import fields

from gpumlp.functions import optimizer
from gpumlp.training import factors
from gpumlp.utils.schema import anything, count, finite, fraction, numbers, seed, size

FUNCTION = {"name": str, "parameters": {str: float}, "own": bool}
SCHEDULE = FUNCTION | {"parameters": {str: (None, float, str)}}

NETWORK = {
    "sizes": [size],
    "activations": [FUNCTION],
    "models": (None, size),
    "dtype": frozenset(["float32", "float64"]),
    "seed": (seed, [seed]),
    "init": (None, str),
    "dropout": numbers,
    "scale?": [bool],
    "precision?": frozenset(["float32", "tf32", "bf16"]),
    "tune?": bool,
    "sparse?": bool,
    "products?": {"gpu?": str, "cublaslt?": int, "algorithms?": {str: str}},
    "metadata": anything,
}

HISTORY = {
    **{name: [(float, [float])] for name in ("loss", "val_loss", "val_accuracy", "lr")},
    "seconds": [float],
    "interrupted": bool,
    "diverged": {str: count},
}

# Of each optimiser, by name: its numbers.  What came later is by keyword only, and may be absent.
OPTIMIZERS = {
    name: {f"{f.name}?" if f.kw_only else f.name: (bool, finite, [finite]) for f in fields(kind)}
    for name, kind in optimizer.optimizers.items()
}

TRAINER = {
    "loss": FUNCTION,
    "optimizer": tuple({"name": frozenset([name]), **OPTIMIZERS[name]} for name in OPTIMIZERS),
    "batch_size": size,
    "schedule": (None, SCHEDULE),
    "shuffle": bool,
    "reduction": frozenset(["mean", "sum"]),
    "seed": (seed, [seed]),
    "clip_norm": (None, float, [float]),
    "penalty_in_loss": bool,
    "factors?": {f"{group}?": [(finite, [finite])] for group in factors.DEFAULT},
    "epoch": count,
    "history": HISTORY,
    "rates": {
        "issued": count,
        "steps_per_epoch": (None, count),
        "total": (None, count),
        "memory": {"best?": [float], "waited?": [count], "factor?": [fraction]},
    },
}


def callback_state(value) -> bool:
    """[class, numbers, names of arrays]"""
    kinds = (str, dict, list)
    fits = isinstance(value, list) and len(value) == len(kinds)
    return fits and all(map(isinstance, value, kinds)) and all(type(v) is str for v in value[2])


FIT = {"epochs_left": (None, count), "batches_done": count, "callbacks": [callback_state]}

_HEAD = {"format": frozenset(["gpumlp"]), "version": size, "digest": str}
FILE = (
    _HEAD | {"network": NETWORK, "trainer?": TRAINER, "fit?": FIT},
    _HEAD | {"estimator": {"class": str, str: anything}},
    _HEAD | {"tabular": {"class": str, str: anything}},
)
