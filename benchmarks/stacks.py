"""Many networks of one shape at once: against the same networks one after another, against
PyTorch's way to map a function over them, and the search over parameters against scikit-learn's."""

from __future__ import annotations

from benchmarks.compared import Effort, as_table
from benchmarks.contenders import (
    EAGER_LOOP,
    GRAPHED_VMAP,
    LIBRARY,
    LIBRARY_LOOP,
    OPERATIONS,
    RESIDENT,
    SCIKIT_LEARN_LOOP,
    VMAP,
)
from benchmarks.contenders.searches import Search
from benchmarks.networks import Network
from benchmarks.tables import Table

CONTENDERS = (
    *(LIBRARY, OPERATIONS, RESIDENT, LIBRARY_LOOP, SCIKIT_LEARN_LOOP, EAGER_LOOP),
    *(VMAP, GRAPHED_VMAP),
)

FITS = Network((64, 64, 10), 200, 1_797, models=32, digits=True)
EPOCHS = 30
# An epoch of these on a GPU.
THOUSAND = FITS._replace(models=1_000)
SEARCH = Search(candidates=64, folds=5, epochs=EPOCHS)

# They take seconds and more.
FIT_EFFORT = Effort(3, 0.05)
SEARCH_EFFORT = Effort(3, 0.0, twice=False)


def run(bench):
    quick = bench.quick
    if bench.device == "cpu":
        network = FITS._replace(models=3).shortened() if quick else FITS
        works, effort = [f"fit {2 if quick else EPOCHS}"], bench.effort if quick else FIT_EFFORT
        yield bench.contest.measure(network, works, effort, names=CONTENDERS)
        search = Search(candidates=4, folds=3, epochs=2) if quick else SEARCH
        effort = SEARCH_EFFORT._replace(turns=1) if quick else SEARCH_EFFORT
        yield bench.search_contest.measure(search, ["search"], effort)
    else:
        network = FITS._replace(models=20).shortened() if quick else THOUSAND
        yield bench.contest.measure(network, ["epoch"], bench.effort, names=CONTENDERS)


def tables(records: list[dict], device: str) -> list[Table]:
    found = []
    for record in records:
        task = record["task"]
        if "candidates" in task:
            title = f"GridSearchCV, {record['name']}, {device}"
        else:
            title = (
                f"Stacks, {record['name']}, batch {task['batch']}, {task['rows']:,} rows, Adam, "
                f"{device}; medians"
            )
        found.append(as_table(record, title))
    return found
