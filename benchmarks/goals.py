"""What the figures should reach, and whether they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.cases import ALGORITHMS, STACKS, TIMED, WAYS
from benchmarks.compared import median, over
from benchmarks.contenders import GEMMS, LIBRARY
from benchmarks.contenders.searches import SEARCH
from benchmarks.networks import FITS, LARGE, LONG, MIDDLE, NETWORKS, SMALLEST, WIDE
from benchmarks.operations import GOAL
from benchmarks.tables import table

SCIKIT_LEARN, EAGER = ("scikit-learn",), ("PyTorch eager",)
PYTORCH = "PyTorch eager", "PyTorch compiled"
BEST = *PYTORCH, "PyTorch CUDA graph", "JAX"
LEAST, MOST = "at least", "at most"


class Goal(NamedTuple):
    """A ratio of a run on this kind of device; value(results) gives it, or None if it was not
    measured."""

    device: str
    text: str
    bound: str
    limit: float
    value: Callable[[dict], float | None]


class Best(NamedTuple):
    """The best median of some contenders, of a task in a part."""

    part: str
    task: tuple
    names: tuple[str, ...]
    work: str = "epoch"

    def of(self, results: dict) -> float | None:
        times = [median(self.record(results), name, self.work) for name in self.names]
        return min(filter(None, times), default=None)

    def record(self, results: dict) -> dict | None:
        records = results.get(self.part) or ()
        return next((r for r in records if r["name"] == self.task.name), None)


def ratio(device, text, a: Best, b: Best, limit, bound=LEAST) -> Goal:
    text = f"{text}, {a.work} of {a.task.name}"
    return Goal(device, text, bound, limit, lambda results: over(a.of(results), b.of(results)))


def peer(device, text, names, task, limit, part="training", work="epoch", base=LIBRARY) -> Goal:
    ours = Best(part, task, (base,), work)
    return ratio(device, f"{text} / gpumlp", ours._replace(names=names), ours, limit)


def gemms(task, limit) -> Goal:
    ours = Best("training", task, (LIBRARY,))
    return ratio("cpu", "gpumlp / its GEMMs", ours, ours._replace(names=(GEMMS,)), limit, MOST)


def activation(device, name, rival) -> Goal:
    """How much of the lead over a peer is kept with another activation than relu; a tenth is for
    the noise of the four times."""

    def lead(results, hidden):
        ours = Best("activations", MIDDLE._replace(hidden=hidden), (LIBRARY,))
        return over(ours._replace(names=rival).of(results), ours.of(results))

    def value(results):
        return over(lead(results, name), lead(results, "relu"))

    text = f"lead over {rival[0]} with {name} / with relu, epoch of {MIDDLE.name}"
    return Goal(device, text, LEAST, 0.9, value)


def step_limit(task, limit) -> Goal:
    text = f"step of {task.name} / (its GEMMs in a graph + its other bytes as a copy)"

    def value(results):
        return (Best("training", task, ()).record(results) or {}).get("over_limit")

    return Goal("cuda", text, MOST, limit, value)


def earns(text: str, pairs: list[tuple[Best, Best]]) -> Goal:
    """What is there for its speed alone has to earn a tenth on some network, or goes."""

    def value(results):
        gains = [over(a.of(results), b.of(results)) for a, b in pairs]
        return max(filter(None, gains), default=None)

    return Goal("cuda", text, LEAST, 1.1, value)


def slowest_operation(results) -> float | None:
    ratios = [r.get("ratio") for r in results.get("operations") or () if r.get("streams")]
    return min(filter(None, ratios), default=None)


def cpu_goals() -> list[Goal]:
    goals = [peer("cpu", *SCIKIT_LEARN, SCIKIT_LEARN, SMALLEST, 5)]
    goals += [peer("cpu", *SCIKIT_LEARN, SCIKIT_LEARN, task, 3) for task in (MIDDLE, WIDE, LONG)]
    goals += [peer("cpu", "PyTorch", PYTORCH, task, 2) for task in (SMALLEST, MIDDLE, LONG)]
    goals += [peer("cpu", "PyTorch", PYTORCH, WIDE, 1), gemms(MIDDLE, 1.35), gemms(WIDE, 1.2)]
    goals.append(peer("cpu", "in a loop", ("gpumlp in a loop",), FITS, 2, "stacks", "fit 30"))
    theirs, ours = "scikit-learn's, 2 processes", "gpumlp's GridSearchCV"
    goals.append(peer("cpu", theirs, (theirs,), SEARCH, 4, "searches", "search", ours))
    return goals


def gpu_goals() -> list[Goal]:
    goals = [peer("cuda", "PyTorch", PYTORCH, task, 2) for task in (SMALLEST, MIDDLE)]
    for name in BEST[2:]:
        goals += [peer("cuda", name, (name,), task, 1.5) for task in (SMALLEST, MIDDLE)]
    for task in LARGE:
        goals += [peer("cuda", "best peer", BEST, task, 1.1), step_limit(task, 1.05)]
    for task in NETWORKS:
        factor = 20 if task is SMALLEST else 50
        goals.append(peer("cuda", *SCIKIT_LEARN, SCIKIT_LEARN, task, factor))
    for name, factor in (("PyTorch vmap", 10), ("PyTorch vmap in a CUDA graph", 2)):
        goals.append(peer("cuda", name, (name,), STACKS[0], factor, "stacks"))
    goals.append(
        Goal("cuda", "slowest streaming operation / a copy", LEAST, GOAL, slowest_operation)
    )
    ways = [[Best("kernel", task, (way,)) for way in WAYS] for task in STACKS]
    goals.append(earns("operations / the persistent kernel, its best", ways))
    both = [Best("algorithms", task, (LIBRARY, TIMED)) for task in ALGORITHMS]
    timed = [[best._replace(names=(name,)) for name in best.names] for best in both]
    goals.append(earns("first / timed algorithms, their best", timed))
    by_precision = [
        [best for best in both if best.task.precision == name] for name in ("tf32", "bf16")
    ]
    goals.append(earns("TF32 / bf16, its best", list(zip(*by_precision, strict=True))))
    return goals


GOALS = [*cpu_goals(), *gpu_goals()]
for device in ("cpu", "cuda"):
    GOALS += [activation(device, name, SCIKIT_LEARN) for name in ("tanh", "sigmoid")]
    GOALS += [activation(device, name, EAGER) for name in ("tanh", "gelu", "sigmoid")]


def judge(results: dict) -> list[dict]:
    """Each goal of this kind of device: goal, bound, limit, value, met (None: not measured)."""
    judged = []
    for device, text, bound, limit, value in GOALS:
        if device == results["device"].partition(":")[0]:
            reached = value(results)
            met = (
                None
                if reached is None
                else reached >= limit
                if bound == LEAST
                else reached <= limit
            )
            judged.append(
                {"goal": text, "bound": bound, "limit": limit, "value": reached, "met": met}
            )
    return judged


def goals_table(judged: list[dict], device: str) -> str:
    words = {True: "met", False: "MISSED", None: "not measured"}
    rows = []
    for goal in judged:
        value = "" if goal["value"] is None else f"{goal['value']:.2f}"
        rows.append([goal["goal"], f"{goal['bound']} {goal['limit']:g}", value, words[goal["met"]]])
    return table(f"Goals, {device}", ["", "goal", "value", ""], rows)
