"""The table of what contenders do: tasks, the works that are timed, and who takes part."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.contenders import GEMMS, LIBRARY
from benchmarks.contenders.everyday import LOADED, OURS, PEER, TASKS, WRITTEN, Everyday
from benchmarks.contenders.searches import SEARCH, Search
from benchmarks.networks import FITS, LARGE, LONG, MIDDLE, NETWORKS, SMALLEST, WIDE, Network

PARTS = {
    "training": "Training",
    "stacks": "Many networks at once",
    "searches": "GridSearchCV",
    "everyday": "Everyday work",
    "activations": "Activations",
    "kernel": "The persistent kernel against operations",
    "algorithms": "Timed algorithms of cuBLASLt against its first",
    "streaming": "Data sent in chunks against data on the device",
}
PEERS = "scikit-learn", "PyTorch eager", "PyTorch compiled", "PyTorch CUDA graph", "JAX"
LOOPS = "gpumlp in a loop", "scikit-learn in a loop", "PyTorch eager in a loop"
VMAPS = "PyTorch vmap", "PyTorch vmap in a CUDA graph"
WAYS = "operations", "persistent kernel"
TIMED = "timed algorithms"
STACKS = [FITS._replace(models=models) for models in (1_000, 132, 64, 16)]
ALGORITHMS = [
    network._replace(precision=precision)
    for network in (SMALLEST, MIDDLE, LARGE[0])
    for precision in ("float32", "tf32", "bf16")
]


class Case(NamedTuple):
    """The first of names is whom the others have to agree with, and are compared to.  turns: how
    often each work is timed; least: the seconds that a time takes at least, or 0 if the work is so
    long that it is not even warmed."""

    part: str
    task: Any  # a Network or a Search
    works: tuple[str, ...]
    names: tuple[str, ...]
    turns: int = 7
    least: float = 0.05


def all_cases(kind: str) -> Iterator[Case]:
    """Of a run on this kind of device, "cpu" or "cuda"; what is most worth knowing comes first."""
    for network in NETWORKS if kind == "cpu" else (SMALLEST, MIDDLE, *LARGE, WIDE, LONG):
        yield Case("training", network, ("step", "epoch"), (LIBRARY, GEMMS, *PEERS))
    for name in ("relu", "tanh", "gelu", "sigmoid"):
        network = MIDDLE._replace(hidden=name)
        yield Case("activations", network, ("epoch",), (LIBRARY, GEMMS, *PEERS[:2]))
    if kind == "cpu":
        yield Case("stacks", FITS, ("fit 30",), (LIBRARY, *LOOPS, *VMAPS), turns=3)
        names = "gpumlp's GridSearchCV", "scikit-learn's, 2 processes"
        yield Case("searches", SEARCH, ("search",), names, turns=3, least=0)
        for everyday in [*TASKS, *LOADED]:
            quick = everyday.work in ("predict", "partial_fit")
            names = OURS, PEER, WRITTEN
            yield Case("everyday", everyday, (everyday.work,), names, turns=7 if quick else 3)
    else:
        yield Case("stacks", STACKS[0], ("epoch",), (LIBRARY, *VMAPS))
        for stack in STACKS:
            yield Case("kernel", stack, ("epoch",), WAYS, turns=5, least=0.02)
        for network in ALGORITHMS:
            yield Case("algorithms", network, ("epoch",), (LIBRARY, TIMED), turns=5, least=0.02)
        for batch in (4096, 256):  # of which a chunk has few, and many
            network = Network((1024, 256, 10), batch, 100_000)
            yield Case("streaming", network, ("epoch",), (LIBRARY, "streamed"), turns=3)


def small(case: Case) -> Case:
    """The same at a tiny size, for a quick run, whose times are too short to be judged."""
    task = case.task
    if isinstance(task, Search):
        return case._replace(task=Search(candidates=4, folds=3, epochs=2), turns=1)
    if isinstance(task, Everyday):
        return case._replace(task=task.small(), turns=1, least=0.001)
    sizes = 64 if task.digits else 20, 8, min(10, task.sizes[-1])
    task = task._replace(sizes=sizes, batch=16, rows=36, models=task.models and 3)
    works = tuple(work.replace("fit 30", "fit 2") for work in case.works)
    return case._replace(task=task, works=works, turns=2, least=0.001)


def chosen(part: str, device: str, quick: bool = False, name: str = "") -> list[Case]:
    """The cases of a part whose task has this in its name; in a quick run each small one once."""
    cases = [case for case in all_cases(device.partition(":")[0]) if case.part == part]
    cases = [case for case in cases if name in case.task.name]
    return list({(c := small(case)).task: c for case in cases}.values()) if quick else cases
