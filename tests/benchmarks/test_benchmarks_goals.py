"""What the benchmarks work out from their figures: ratios, limits, slopes, goals."""

import re

import pytest

from benchmarks import __main__ as command
from benchmarks import (
    compared,
    goals,
    scaling,
    traffic,
    training,
)
from benchmarks.contenders import GEMMS, LIBRARY, SCIKIT_LEARN
from benchmarks.networks import LARGE, MIDDLE, NETWORKS, SMALLEST, Network

SMALL = [Network((5, 7, 3), 8, 20, loss) for loss in ("cross_entropy", "squared_error")]


def test_networks_of_each_run():
    assert training.chosen() == list(NETWORKS) and NETWORKS[0].steps == 9
    short = training.chosen(quick=True)
    assert {n.name for n in short} <= {n.name for n in NETWORKS}
    assert [n.steps for n in short] == [2, 2]
    on_gpu = training.chosen(device="cuda:0")
    assert set(on_gpu) == {*NETWORKS, *LARGE} and len(on_gpu) == 7
    assert [n.name for n in training.chosen("bf16", device="cuda:0")] == [LARGE[-1].name]


def record_of(network, step, epoch):
    """A record of training as `measure` gives it, with these medians."""
    found = {
        name: {
            "error": None,
            "declined": None,
            "works": {"step": {"seconds": [step[name]]}, "epoch": {"seconds": [epoch[name]]}},
        }
        for name in step
    }
    compared.summarise(found)
    named = {"name": network.name, "task": network._asdict(), "works": ["step", "epoch"]}
    return named | {"contenders": found}


def test_a_failed_contender_leaves_the_others_ratios():
    record = record_of(SMALL[0], {LIBRARY: 2.0, GEMMS: 1.0}, {LIBRARY: 4.0, GEMMS: 1.0})
    works = {"step": {"seconds": [1.0]}}
    failed = {"error": "Traceback ...\nRuntimeError: no", "declined": None, "works": works}
    declined = {"error": None, "declined": "it has no sine", "works": {}}
    record["contenders"] |= {"other": failed, "third": declined}
    compared.summarise(record["contenders"])
    assert failed["works"] == {}
    assert record["contenders"][LIBRARY]["works"]["epoch"]["over_gemms"] == 4.0
    summary, table = training.tables([record], "cpu")
    assert re.search(r"5-7-3 +4 s +4\.00x", summary.text())
    for text in (table.text(), table.markdown()):
        assert "other failed: RuntimeError: no" in text
        assert "third takes no part: it has no sine" in text and "4.00x" in text
    assert command.failed(record)


def cpu_goals():
    return [goal for goal in goals.GOALS if goal.device == "cpu"]


def test_goals_are_met_missed_or_not_measured():
    results = {"device": "cpu"}
    assert {goal["met"] for goal in goals.judge(results)} == {None}
    times = {LIBRARY: 1.0, GEMMS: 0.8, SCIKIT_LEARN: 4.0, "PyTorch eager": 3.0}
    times |= {"PyTorch compiled": 1.5}
    results["training"] = [record_of(SMALLEST, times, times), record_of(MIDDLE, times, times)]
    judged = {goal["goal"]: goal for goal in goals.judge(results)}
    assert len(judged) == len(cpu_goals())

    def of(peer, network):
        return judged[f"{peer} / gpumlp, an epoch of {network.name}"]

    assert of(SCIKIT_LEARN, SMALLEST)["met"] is False and of(SCIKIT_LEARN, MIDDLE)["met"] is True
    assert of("PyTorch", MIDDLE)["met"] is False and of("PyTorch", MIDDLE)["found"] == 1.5
    gemms = judged[f"gpumlp / its GEMMs alone, an epoch of {MIDDLE.name}"]
    assert gemms["met"] is True and gemms["found"] == 1.25
    del results["training"][0]["contenders"][SCIKIT_LEARN]
    assert goals.judge(results)[0]["met"] is None
    (table,) = goals.tables(list(judged.values()), "cpu")
    assert "MISSED" in table.text() and "not measured" in table.text()


def test_a_lead_is_compared_with_the_one_that_relu_has():
    found = []
    for name, peer in (("relu", 4.0), ("tanh", 3.0)):
        network = MIDDLE._replace(hidden=name)
        found.append(record_of(network, {LIBRARY: 1.0}, {LIBRARY: 1.0, "PyTorch eager": peer}))
        works = {"epoch": {"seconds": [peer], "median": peer}}
        found[-1]["contenders"]["PyTorch eager"] = {"works": works}
    results = {"device": "cpu", "activations": found}
    assert goals.beside_relu("tanh", "PyTorch eager")(results) == 0.75
    assert goals.beside_relu("gelu", "PyTorch eager")(results) is None


def test_goals_on_a_gpu():
    results = {"device": "cuda:0", "copy_bandwidth": 1e12}
    times = {LIBRARY: 1.0, GEMMS: 0.5, "JAX scan": 1.2, "PyTorch CUDA graph": 1.3}
    large = LARGE[0]
    results["training"] = [record_of(large, times, times)]
    results["operations"] = [
        {"streams": True, "ratio": 0.95, "error": None},
        {"streams": True, "ratio": 0.91, "error": None},
        {"streams": False, "ratio": 0.2, "error": None},
    ]
    judged = {goal["goal"]: goal for goal in goals.judge(results)}
    assert judged[f"best peer / gpumlp, an epoch of {large.name}"]["found"] == 1.2
    limit = 0.5 + sum(traffic.other_bytes(large).values()) / 1e12
    step = next(goal for text, goal in judged.items() if text.startswith(f"a step of {large.name}"))
    assert step["found"] == 1 / limit and step["met"] is False
    operation = judged["slowest streaming operation / a copy"]
    assert operation["found"] == 0.91 and operation["met"] is True


def test_other_bytes_are_those_of_the_kernels_headers():
    network = Network((5, 7, 6, 3), 8, 20)
    count = 5 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3
    assert network.count == count
    floats = {
        "gather": 2 * 8 * 5,
        "cast_bf16": 0,
        "activate": 2 * 8 * 13,
        "loss": 2 * 8 * 3,
        "backprop": 3 * 8 * 13 + 8 * 3,
        "prepare_update": count,
        "update": 7 * count,
    }
    assert traffic.other_bytes(network) == {name: 4 * n for name, n in floats.items()}
    stack = traffic.other_bytes(network._replace(models=5))
    assert stack == {name: 20 * n for name, n in floats.items()}
    assert traffic.other_bytes(network._replace(hidden="gelu"))["activate"] == 12 * 8 * 13
    half = traffic.other_bytes(network._replace(precision="bf16"))
    assert half["cast_bf16"] == 6 * count and half["activate"] == 4 * 8 * 13
    assert half["update"] == 28 * count


def test_slopes_of_power_laws():
    assert scaling.slope([(1, 3.0), (2, 12.0), (4, 48.0)]) == pytest.approx(2)
    assert scaling.slope([(1, 3.0)]) is None
