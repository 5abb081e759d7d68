"""What the figures should reach, and whether they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks import stacks, traffic
from benchmarks.compared import median
from benchmarks.contenders import (
    COMPILED,
    EAGER,
    GEMMS,
    GRAPHED,
    GRAPHED_VMAP,
    JAX_JIT,
    JAX_SCAN,
    LIBRARY,
    LIBRARY_LOOP,
    SCIKIT_LEARN,
    SCIKIT_LEARN_SEARCH,
    VMAP,
)
from benchmarks.networks import LARGE, LONG, MIDDLE, NETWORKS, SMALLEST, WIDE, Network
from benchmarks.operations import GOAL
from benchmarks.tables import Table

LEAST, MOST = "at least", "at most"
TORCH = (EAGER, COMPILED)
PEERS = (EAGER, COMPILED, GRAPHED, JAX_JIT, JAX_SCAN)
CPU, GPU = "cpu", "cuda"


class Goal(NamedTuple):
    """A ratio of a run on this kind of device; value(results) gives it, or None if it was not
    measured."""

    device: str
    text: str
    bound: str
    limit: float
    value: Callable[[dict], float | None]

    def judge(self, results: dict) -> dict:
        found = self.value(results)
        reached = None
        if found is not None:
            reached = found >= self.limit if self.bound == LEAST else found <= self.limit
        named = {"goal": self.text, "bound": self.bound, "limit": self.limit}
        return named | {"found": found, "met": reached}


def _record(results, part: str, name: str) -> dict | None:
    return next((r for r in results.get(part) or () if r["name"] == name), None)


def _best(record, names: Iterable[str], what: str) -> float | None:
    """The shortest median of these contenders."""
    times = [median(record, name, what) for name in names] if record else []
    return min((taken for taken in times if taken), default=None)


def _over(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def times(network, of, over, what="epoch", part="training"):
    """The time of the best of some contenders over that of the best of others."""

    def value(results):
        record = _record(results, part, network.name)
        return _over(_best(record, of, what), _best(record, over, what))

    return value


def beside_relu(name: str, peer: str):
    """How much of the lead over a peer is kept with another activation than relu."""

    def lead(results, hidden):
        network = MIDDLE._replace(hidden=hidden)
        return times(network, [peer], [LIBRARY], part="activations")(results)

    return lambda results: _over(lead(results, name), lead(results, "relu"))


def over_step_limit(network: Network):
    def value(results):
        record, copy = _record(results, "training", network.name), results.get("copy_bandwidth")
        gemms, ours = (_best(record, [name], "step") for name in (GEMMS, LIBRARY))
        return _over(ours, traffic.step_limit(network, gemms, copy) if gemms and copy else None)

    return value


def slowest_operation(results) -> float | None:
    streaming = [r for r in results.get("operations") or () if r.get("streams")]
    return min((r["ratio"] for r in streaming if "ratio" in r), default=None)


def against(device, peers, title, network, limit, bound=LEAST) -> Goal:
    return Goal(
        device,
        f"{title} / gpumlp, an epoch of {network.name}",
        bound,
        limit,
        times(network, peers, [LIBRARY]),
    )


def over_gemms(network, limit) -> Goal:
    text = f"gpumlp / its GEMMs alone, an epoch of {network.name}"
    return Goal(CPU, text, MOST, limit, times(network, [LIBRARY], [GEMMS]))


def stacked(device, peer, task, what, limit) -> Goal:
    """A part of stacks.py."""
    text = f"{peer} / gpumlp, {what} of {task.name}"
    return Goal(device, text, LEAST, limit, times(task, [peer], [LIBRARY], what, "stacks"))


# A tenth for the noise of the four times that such a ratio is made of.
AS_FAST = 0.9

GOALS = (
    *(
        against(CPU, [SCIKIT_LEARN], SCIKIT_LEARN, network, 5 if network is SMALLEST else 3)
        for network in NETWORKS
    ),
    *(against(CPU, TORCH, "PyTorch", network, 2) for network in (SMALLEST, MIDDLE, LONG)),
    against(CPU, TORCH, "PyTorch", WIDE, 1),
    over_gemms(MIDDLE, 1.35),
    over_gemms(WIDE, 1.2),
    stacked(CPU, LIBRARY_LOOP, stacks.FITS, f"fit {stacks.EPOCHS}", 2),
    stacked(CPU, SCIKIT_LEARN_SEARCH, stacks.SEARCH, "search", 4),
    *(
        Goal(
            device,
            f"lead over {peer} with {name} / with relu, an epoch of {MIDDLE.name}",
            LEAST,
            AS_FAST,
            beside_relu(name, peer),
        )
        for device in (CPU, GPU)
        for name, peers in (
            ("tanh", (SCIKIT_LEARN, EAGER)),
            ("gelu", (EAGER,)),
            ("sigmoid", (SCIKIT_LEARN, EAGER)),
        )
        for peer in peers
    ),
    *(
        against(GPU, peers, title, network, limit)
        for network in (SMALLEST, MIDDLE)
        for peers, title, limit in (
            (TORCH, "PyTorch", 2),
            ([GRAPHED], GRAPHED, 1.5),
            ([JAX_SCAN], JAX_SCAN, 1.5),
        )
    ),
    *(against(GPU, PEERS, "best peer", network, 1.1) for network in LARGE),
    *(
        Goal(
            GPU,
            f"a step of {network.name} / (its GEMMs in a graph + its other bytes as a copy)",
            MOST,
            1.05,
            over_step_limit(network),
        )
        for network in LARGE
    ),
    *(
        against(GPU, [SCIKIT_LEARN], SCIKIT_LEARN, network, 20 if network is SMALLEST else 50)
        for network in NETWORKS
    ),
    *(
        stacked(GPU, peer, stacks.THOUSAND, "epoch", limit)
        for peer, limit in ((VMAP, 10), (GRAPHED_VMAP, 2))
    ),
    Goal(GPU, "slowest streaming operation / a copy", LEAST, GOAL, slowest_operation),
)


def judge(results: dict) -> list[dict]:
    """Each goal of this kind of device: goal, bound, limit, found, met (None: not measured)."""
    kind = results["device"].partition(":")[0]
    return [goal.judge(results) for goal in GOALS if goal.device == kind]


def tables(judged: list[dict], device: str) -> list[Table]:
    said = {True: "met", False: "MISSED", None: "not measured"}
    rows = [
        [
            each["goal"],
            f"{each['bound']} {each['limit']:g}",
            "" if each["found"] is None else f"{each['found']:.2f}",
            said[each["met"]],
        ]
        for each in judged
    ]
    return [Table(f"Goals, {device}", ["", "goal", "found", ""], rows)]
