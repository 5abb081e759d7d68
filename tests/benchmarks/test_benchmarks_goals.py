"""What the benchmarks work out from their figures: ratios, limits, goals."""

import re

import pytest

from benchmarks import cases, compared, goals, operations, traffic
from benchmarks.contenders import GEMMS, LIBRARY
from benchmarks.contenders.everyday import LOADED, TASKS
from benchmarks.contenders.searches import SEARCH
from benchmarks.networks import FITS, LARGE, MIDDLE, NETWORKS, SMALLEST, Network
from gpumlp.backend import sources

SMALL = Network((5, 7, 3), 8, 20)
SCIKIT_LEARN, EAGER, COMPILED = "scikit-learn", "PyTorch eager", "PyTorch compiled"


def test_cases_of_each_run():
    def networks(*arguments):
        return [case.task for case in cases.chosen("training", *arguments)]

    assert networks("cpu") == list(NETWORKS)
    assert set(networks("cuda:0")) == {*NETWORKS, *LARGE} and len(networks("cuda:0")) == 7
    assert networks("cuda:0", False, "bf16") == [LARGE[-1]]
    small = networks("cuda:0", True)
    assert len(small) == len(set(small)) == 4 and all(task.count < 400 for task in small)
    for device in ("cpu", "cuda"):
        assert {case.part for case in cases.all_cases(device)} <= set(cases.PARTS)


def record_of(task, times, *works, copy_bandwidth=1e12):
    """A record as `measure` gives it, with these medians."""
    results = {
        name: {"error": None, "declined": None, "seconds": {work: [taken] for work in works}}
        for name, taken in times.items()
    }
    limit = compared.summarise(results, task, copy_bandwidth)
    named = {"name": task.name, "label": task.label, "task": task._asdict()}
    named |= {"works": works, "first": next(iter(times))}
    return named | {"contenders": results} | limit


def test_a_failed_contender_leaves_the_others_ratios():
    record = record_of(SMALL, {LIBRARY: 4.0, GEMMS: 1.0, "other": 8.0}, "step", "epoch")
    results = record["contenders"]
    results["other"]["error"] = "Traceback ...\nRuntimeError: no"
    results["third"] = {"error": None, "declined": "it has no sine", "seconds": {}}
    compared.summarise(results, SMALL, 1e12)
    assert results["other"]["median"] == {}
    table = compared.part_table("A title", [record])
    assert re.search(r"5-7-3.*: epoch +\| +4 s +\| +4\.00x", table)
    assert "third takes no part: it has no sine" in table and "**A title**" in table
    assert compared.errors(record) == ["5-7-3: other failed: RuntimeError: no"]


def judged_of(results):
    return {goal["goal"]: goal for goal in goals.judge(results)}


def test_goals_are_met_missed_or_not_measured():
    results = {"device": "cpu"}
    assert {goal["met"] for goal in goals.judge(results)} == {None}
    times = {LIBRARY: 1.0, GEMMS: 0.8, SCIKIT_LEARN: 4.0, EAGER: 3.0, COMPILED: 1.5}
    results["training"] = [record_of(task, times, "epoch") for task in (SMALLEST, MIDDLE)]
    judged = judged_of(results)
    assert len(judged) == 17 + len(TASKS) + len(LOADED)

    def of(peer, network):
        return judged[f"{peer} / gpumlp, epoch of {network.name}"]

    assert of(SCIKIT_LEARN, SMALLEST)["met"] is False and of(SCIKIT_LEARN, MIDDLE)["met"] is True
    assert of("PyTorch", MIDDLE)["met"] is False and of("PyTorch", MIDDLE)["value"] == 1.5
    gemms = judged[f"gpumlp / its GEMMs alone, epoch of {MIDDLE.name}"]
    assert gemms["met"] is True and gemms["value"] == 1.25
    del results["training"][0]["contenders"][SCIKIT_LEARN]
    assert goals.judge(results)[0]["met"] is None
    table = goals.goals_table(list(judged.values()), "cpu")
    assert "MISSED" in table and "not measured" in table


def test_goals_of_stacks_and_searches():
    fits = record_of(FITS, {LIBRARY: 1.0, "gpumlp in a loop": 2.5}, "fit 30")
    times = {"gpumlp's GridSearchCV": 10.0, "scikit-learn's, 2 processes": 30.0}
    search = record_of(SEARCH, times, "search")
    judged = judged_of({"device": "cpu", "stacks": [fits], "searches": [search]})
    loop = judged["in a loop / gpumlp, fit 30 of 64-64-10 32 networks"]
    assert (loop["value"], loop["met"]) == (2.5, True)
    searched = judged["scikit-learn's, 2 processes / gpumlp's GridSearchCV"]
    assert (searched["value"], searched["met"]) == (3.0, False)
    times = {LIBRARY: 1.0, "PyTorch vmap": 9.0, "PyTorch vmap in a CUDA graph": 2.5}
    record = record_of(cases.STACKS[0], times, "epoch")
    judged = judged_of({"device": "cuda:0", "stacks": [record]})
    named = [goal for text, goal in judged.items() if "1,000 networks" in text]
    assert [(goal["limit"], goal["met"]) for goal in named] == [(10, False), (2, True)]


def test_a_lead_is_compared_with_the_one_that_relu_has():
    records = [
        record_of(MIDDLE._replace(hidden=name), {LIBRARY: 1.0, EAGER: peer}, "epoch")
        for name, peer in (("relu", 4.0), ("tanh", 3.0))
    ]
    judged = judged_of({"device": "cpu", "activations": records})
    text = f"lead over {EAGER} with {{}} / with relu, epoch of {MIDDLE.name}"
    assert judged[text.format("tanh")]["value"] == 0.75
    assert judged[text.format("gelu")]["value"] is None


def test_goals_on_a_gpu():
    results = {"device": "cuda:0"}
    times = {LIBRARY: 1.0, GEMMS: 0.5, "JAX": 1.2, "PyTorch CUDA graph": 1.3}
    large = LARGE[0]
    results["training"] = [record_of(large, times, "step", "epoch")]
    results["operations"] = [
        {"streams": True, "ratio": 0.95, "error": None},
        {"streams": True, "ratio": 0.91, "error": None},
        {"streams": False, "ratio": 0.2, "error": None},
    ]
    judged = judged_of(results)
    assert judged[f"best peer / gpumlp, epoch of {large.name}"]["value"] == 1.2
    limit = 0.5 + sum(traffic.other_bytes(large).values()) / 1e12
    step = next(goal for text, goal in judged.items() if text.startswith(f"step of {large.name}"))
    assert step["value"] == 1 / limit and step["met"] is False
    operation = judged["slowest streaming operation / a copy"]
    assert operation["value"] == 0.91 and operation["met"] is True


def test_what_is_there_for_its_speed_alone_has_to_earn_a_tenth():
    ways = [(cases.STACKS[1], 30.0, 10.0), (cases.STACKS[3], 10.0, 12.0)]
    kernel = [record_of(task, dict(zip(cases.WAYS, times, strict=True)), "epoch")
              for task, *times in ways]  # fmt: skip
    algorithms = [
        record_of(task, {LIBRARY: first, cases.TIMED: timed}, "epoch")
        for task, first, timed in zip(cases.ALGORITHMS, (9, 10.0, 9.8), (9, 9.5, 9.6), strict=False)
    ]
    judged = judged_of({"device": "cuda:0", "kernel": kernel, "algorithms": algorithms})

    def of(text):
        return judged[text]["value"], judged[text]["met"]

    assert of("operations / the persistent kernel") == (3.0, True)
    assert of("first / timed algorithms") == (pytest.approx(10 / 9.5), False)
    assert of("TF32 / bf16") == (pytest.approx(9.5 / 9.6), False)


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


# What each header says, by which traffic.py and operations.py count, and the operations so counted.
STATED = {
    "forward.cu": ("writes n, and z + b where f' needs it: 2 or 3 Stored, of 4 bytes", "activate"),
    "backward.cu": ("2 Delta and 1 Stored, 12 bytes in float32 and 6 in bf", "backprop"),
    "losses.cu": ("8 or 12 bytes in float32 (6 or 10 with", "loss"),
    "gather.cu": ("reads one Source, writes one Stored", "gather"),
    "rows.cu": ("reads z (twice more from the cache); writes n: 2 Reals", "softmax"),
    "accumulate_metrics.cu": ("reads n, and y unless the targets are", "accumulate_metrics"),
    "cast_bf16.cu": ("reads one Real, writes one Bf16: 6", "cast_bf16"),
    "shuffle.cu": ("shuffle_keys writes 8, shuffle_order reads 8 and writes 4", "shuffle"),
    "prepare_update.cu": ("the weights too: 1 Real, or 2", "prepare_update"),
    "update.cu": ("3 Reals, and 2 for each state buffer in use", "update"),
}
WHOLE_STEPS = {"persistent.cu"}  # by the part "kernel"
OF_OTHER_LAYERS = {"scale.cu", "sparse.cu"}  # that no network of the suite has


@pytest.mark.parametrize("kernel", STATED)
def test_kernels_state_the_bytes_that_are_counted(kernel):
    comment = re.findall(r"^//(.*)$", sources.text(kernel), re.MULTILINE)
    paragraphs = "\n".join(line.strip() for line in comment).split("\n\n")
    stated = next(text for text in paragraphs if text.startswith("Bytes per "))
    assert STATED[kernel][0] in " ".join(stated.split())


def test_every_kernel_is_measured():
    kernels = {name for name in sources.names() if name.endswith(".cu")}
    assert kernels == {*STATED} | WHOLE_STEPS | OF_OTHER_LAYERS
    measured = {*operations.STEP, "softmax", "accumulate_metrics"} - {"gemm"}
    assert {name for _, names in STATED.values() for name in names.split()} == measured
