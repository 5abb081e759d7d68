"""What the figures should reach, and whether they do."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.cases import ALGORITHMS, STACKS, TIMED, WAYS
from benchmarks.compared import median, over
from benchmarks.contenders import GEMMS, LIBRARY
from benchmarks.contenders.everyday import LOADED, OURS, PEER, TASKS
from benchmarks.contenders.searches import SEARCH
from benchmarks.networks import FITS, LARGE, LONG, MIDDLE, NETWORKS, SMALLEST, WIDE
from benchmarks.operations import GOAL
from benchmarks.tables import table

SCIKIT_LEARN, EAGER, COMPILED = "scikit-learn", "PyTorch eager", "PyTorch compiled"
OTHERS = "PyTorch CUDA graph", "JAX"
LEAST, MOST = "at least", "at most"
EARNED = 1.1  # on some network, by what is there for its speed on a GPU alone; or it goes

Value = Callable[[dict], float | None]  # of a run's results; None if it was not measured


class Goal(NamedTuple):
    """For a run on this kind of device."""

    device: str
    text: str
    bound: str
    limit: float
    value: Value


def find(results: dict, part: str, task) -> dict:
    named = [record for record in results.get(part) or () if record["name"] == task.name]
    return named[0] if named else {"contenders": {}}


def best(part: str, task, *names: str, work: str = "epoch") -> Value:
    """The best median of some contenders."""

    def value(results):
        times = [median(find(results, part, task), name, work) for name in names]
        return min(filter(None, times), default=None)

    return value


def quotient(a: Value, b: Value) -> Value:
    return lambda results: over(a(results), b(results))


def over_limit(task) -> Value:
    return lambda results: find(results, "training", task).get("over_limit")


def largest(values: list[Value]) -> Value:
    return lambda results: max(filter(None, (v(results) for v in values)), default=None)


def epoch(device, task, limit, *peers, title="") -> Goal:
    """Over gpumlp's, the best of these."""
    value = quotient(best("training", task, *peers), best("training", task, LIBRARY))
    return Goal(device, f"{title or peers[0]} / gpumlp, epoch of {task.name}", LEAST, limit, value)


def activation(device, name, peer) -> Goal:
    """How much of the lead is kept; a tenth is for the noise of four times."""
    tasks = [MIDDLE._replace(hidden=hidden) for hidden in (name, "relu")]
    leads = [quotient(*(best("activations", t, n) for n in (peer, LIBRARY))) for t in tasks]
    text = f"lead over {peer} with {name} / with relu, epoch of {MIDDLE.name}"
    return Goal(device, text, LEAST, 0.9, quotient(*leads))


def cpu_goals():
    yield epoch("cpu", SMALLEST, 5, SCIKIT_LEARN)
    for task in (MIDDLE, WIDE, LONG):
        yield epoch("cpu", task, 3, SCIKIT_LEARN)
    for task in NETWORKS:
        yield epoch("cpu", task, 1 if task is WIDE else 2, EAGER, COMPILED, title="PyTorch")
    for task, limit in ((MIDDLE, 1.35), (WIDE, 1.2)):
        value = quotient(*(best("training", task, name) for name in (LIBRARY, GEMMS)))
        yield Goal("cpu", f"gpumlp / its GEMMs alone, epoch of {task.name}", MOST, limit, value)
    fits = [best("stacks", FITS, n, work="fit 30") for n in ("gpumlp in a loop", LIBRARY)]
    yield Goal("cpu", f"in a loop / gpumlp, fit 30 of {FITS.name}", LEAST, 2, quotient(*fits))
    names = "scikit-learn's, 2 processes", "gpumlp's GridSearchCV"
    searches = [best("searches", SEARCH, name, work="search") for name in names]
    yield Goal("cpu", " / ".join(names), LEAST, 4, quotient(*searches))
    for task in [*TASKS, *LOADED]:
        times = [best("everyday", task, n, work=task.work) for n in (PEER, OURS)]
        text = f"scikit-learn / gpumlp, {task.work}: {task.name}"
        yield Goal("cpu", text, LEAST, task.goal, quotient(*times))


def gpu_goals():
    for task in (SMALLEST, MIDDLE):
        yield epoch("cuda", task, 2, EAGER, COMPILED, title="PyTorch")
        yield from (epoch("cuda", task, 1.5, name) for name in OTHERS)
    for task in LARGE:
        yield epoch("cuda", task, 1.1, EAGER, COMPILED, *OTHERS, title="best peer")
        text = f"step of {task.name} / (its GEMMs in a graph + its other bytes as a copy)"
        yield Goal("cuda", text, MOST, 1.05, over_limit(task))
    for task in NETWORKS:
        yield epoch("cuda", task, 20 if task is SMALLEST else 50, SCIKIT_LEARN)
    for name, limit in (("PyTorch vmap", 10), ("PyTorch vmap in a CUDA graph", 2)):
        value = quotient(*(best("stacks", STACKS[0], n) for n in (name, LIBRARY)))
        yield Goal("cuda", f"{name} / gpumlp, epoch of {STACKS[0].name}", LEAST, limit, value)
    yield Goal("cuda", "slowest streaming operation / a copy", LEAST, GOAL, slowest_operation)
    gains = [quotient(*(best("kernel", task, way) for way in WAYS)) for task in STACKS]
    yield Goal("cuda", "operations / the persistent kernel", LEAST, EARNED, largest(gains))
    names = LIBRARY, TIMED
    gains = [quotient(*(best("algorithms", task, n) for n in names)) for task in ALGORITHMS]
    yield Goal("cuda", "first / timed algorithms", LEAST, EARNED, largest(gains))
    times = {task: best("algorithms", task, *names) for task in ALGORITHMS}
    gains = [quotient(times[task._replace(precision="tf32")], times[task])
             for task in ALGORITHMS if task.precision == "bf16"]  # fmt: skip
    yield Goal("cuda", "TF32 / bf16", LEAST, EARNED, largest(gains))


def slowest_operation(results) -> float | None:
    ratios = [r.get("ratio") for r in results.get("operations") or () if r.get("streams")]
    return min(filter(None, ratios), default=None)


GOALS = [*cpu_goals(), *gpu_goals()]
for device in ("cpu", "cuda"):
    GOALS += [activation(device, name, SCIKIT_LEARN) for name in ("tanh", "sigmoid")]
    GOALS += [activation(device, name, EAGER) for name in ("tanh", "gelu", "sigmoid")]


def judge(results: dict) -> list[dict]:
    """Each goal of this kind of device: goal, bound, limit, value, met (None: not measured)."""
    judged = []
    for goal in GOALS:
        if results["device"].startswith(goal.device):
            value, met = goal.value(results), None
            if value is not None:
                met = value >= goal.limit if goal.bound == LEAST else value <= goal.limit
            record = {"goal": goal.text, "bound": goal.bound, "limit": goal.limit}
            judged.append(record | {"value": value, "met": met})
    return judged


def goals_table(judged: list[dict], device: str) -> str:
    words = {True: "met", False: "MISSED", None: "not measured"}
    rows = []
    for goal in judged:
        value = "" if goal["value"] is None else f"{goal['value']:.2f}"
        rows.append([goal["goal"], f"{goal['bound']} {goal['limit']:g}", value, words[goal["met"]]])
    return table(f"Goals, {device}", ["", "goal", "value", ""], rows)
