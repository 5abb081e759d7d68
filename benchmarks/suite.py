"""The parts of the suite, and what they share in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks import (
    activations,
    inference,
    operations,
    optimizers,
    products,
    scaling,
    stacks,
    starts,
    training,
)
from benchmarks.compared import QUICK, THOROUGH, Contest
from benchmarks.contenders import ENTRIES, OF_STACKS, laws, searches
from benchmarks.tables import Table
from gpumlp import backend


class Part(NamedTuple):
    """run(bench) measures and gives record after record; tables(records, device)."""

    run: Callable[[Bench], Iterator[dict]]
    tables: Callable[[list[dict], str], list[Table]]


PARTS = {
    "training": Part(training.run, training.tables),
    "stacks": Part(stacks.run, stacks.tables),
    "activations": Part(activations.run, activations.tables),
    "inference": Part(inference.run, inference.tables),
    "optimisers": Part(optimizers.run, optimizers.tables),
    "operations": Part(operations.run, operations.tables),
    "products": Part(products.run, products.tables),
    "growth": Part(scaling.run, scaling.tables),
    "first-step": Part(starts.run_first_steps, starts.first_step_tables),
    "imports": Part(starts.run_imports, starts.import_tables),
    "memory": Part(starts.run_memory, starts.memory_tables),
}


SEARCH_LIMIT = 900.0  # seconds: scikit-learn's takes minutes
COPIES = {"cuda": (1 << 25, 30), "cpu": (1 << 24, 7), "quick": (1 << 20, 3)}  # floats, times


class Bench:
    """A run: the device, what was asked for, and the contenders' processes."""

    def __init__(self, device: str, quick=False, network=None, operation=None, names=None):
        self.device, self.quick, self.network, self.operation = device, quick, network, operation
        self.effort = QUICK if quick else THOROUGH
        self.contest = Contest(device, names, entries=(*ENTRIES, *OF_STACKS))
        self.optimizer_contest = Contest(device, entries=laws.ENTRIES)
        self.search_contest = Contest(device, limit=SEARCH_LIMIT, entries=searches.ENTRIES)
        self.absent = self.contest.absent
        size = "quick" if quick else device.partition(":")[0]
        self.copy_bandwidth = operations.copy_bandwidth(backend.get(device), *COPIES[size])

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for contest in (self.contest, self.optimizer_contest, self.search_contest):
            contest.__exit__(*exception)
