"""The self-check of a GPU: what it finds, when it runs and what it prints."""

import re
from pathlib import Path

import pytest

from gpumlp import backend
from gpumlp.backend import device, selfcheck, sources
from gpumlp.backend.cuda import driver
from gpumlp.training import persistent_cases
from tests.helpers.commandline import run
from tests.helpers.spoiling import WAYS_TO_SPOIL
from tests.seeded import Bug, planted

CASES = [*selfcheck.cases(), *persistent_cases.cases()]


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A process that has used no GPU yet, which checks them, with a cache of its own."""
    monkeypatch.delenv(selfcheck.VARIABLE)
    monkeypatch.delenv(device.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget(monkeypatch)
    return tmp_path / "gpumlp" / "checked"


def forget(monkeypatch):
    """As in the next process."""
    monkeypatch.setattr(device, "_answered", {})
    monkeypatch.setattr(device, "_warned", False)
    monkeypatch.setattr(selfcheck, "_failed", {})


@pytest.fixture
def runs(monkeypatch):
    """The devices of which operations were run."""
    devices, run_cases = [], selfcheck.run

    def noted(device, chosen):
        devices.append(device)
        return run_cases(device, chosen)

    monkeypatch.setattr(selfcheck, "run", noted)
    return devices


@pytest.fixture
def few(monkeypatch):
    """A few cases, for tests of what is around them."""
    chosen = [case for case in CASES if case.first and case.operation in ("gemm", "copies")]
    monkeypatch.setattr(selfcheck, "cases", lambda: chosen)
    monkeypatch.setattr(persistent_cases, "cases", list)
    return chosen


@pytest.fixture
def broken(monkeypatch, cuda, counters):
    """Every product on the stand-in has the wrong sign."""
    from gpumlp.backend.cuda.cupy_ops import CupyOps

    right = CupyOps.gemm

    def wrong(self, a, b, out, **options):
        right(self, a, b, out, **options)
        out *= -1

    monkeypatch.setattr(CupyOps, "gemm", wrong)


# ------------------------------------------------------------------ what it finds

BUGS = {
    "activate (identity": ("forward.cu", "row < rows; row +=", "row < rows - 1; row +="),
    "activate (relu,": ("activations.cuh", "return z <= Real(0) ? Real(0) : z;", "return z;"),
    "backprop (identity": ("columns.cuh", "total = column_sum<V>(total);", ""),
    "backprop (relu, dropout": ("backward.cu", "at.network, element)", "at.network, element + 4)"),
    "activate (softmax": ("rows.cu", "total = row_sum(total);", ""),
    "loss (cross_entropy": ("losses.cu", "finish_loss(sum, factor,", "finish_loss(sum, Real(1),"),
    "prepare_update (with the penalty": (
        *("prepare_update.cu", "if (theta) penalty = ordered_sum(penalties, chunks);"),
        "",
    ),
    "update (Adam": ("adam.cuh", "return -expm1(t * log_beta);", "return Real(1);"),
    "update (Adam, what overflows": (
        *("update_rule.cuh", "moves = moves & isfinite(after[i]);"),
        "moves = true;",
    ),
    "update (Adam, what overflows stays, and its network is halted": (
        *("update.cu", "if (!all) atomicMax(halted + at.network, t[at.network]);"),
        "",
    ),
    "gather (labels": ("gather.cu", "+ cursor[m] * batch", "+ cursor[m]"),
    "accumulate_metrics (largest": ("accumulate_metrics.cu", "cursor[m] += 1;", ""),
    "shuffle (": ("shuffle.cu", "SHUFFLE)", "DROPOUT)"),
}


@pytest.mark.parametrize("named", BUGS)
def test_a_wrong_kernel_is_named(cuda, counters, fresh, named):
    file, right, wrong = BUGS[named]
    with planted(Bug(file, right, wrong, check="")):
        problem = device.gpu_problem()
    assert f"GPU 0 computes something wrong: {named}" in str(problem)
    assert "gpumlp info --check" in str(problem) and problem.broken
    assert not list(fresh.iterdir())


def test_a_wrong_resident_kernel_is_found(cuda, counters):
    case = next(case for case in CASES if str(case) == "persistent_kernel (relu, float32)")
    with planted(Bug(*BUGS["update (Adam"], check="")):
        (outcome,) = selfcheck.run("cuda:0", [case])
    assert not outcome.passed


@pytest.mark.parametrize("operation", ["capture", "transfers", "copies"])
def test_a_wrong_sequence_or_copy_is_named(fresh, cuda, counters, monkeypatch, operation):
    from gpumlp.backend.cuda import cupy_ops, transfer

    if operation == "capture":
        monkeypatch.setattr(cupy_ops.CupyOps, operation, lambda self, work: lambda: None)
    elif operation == "transfers":
        monkeypatch.setattr(transfer.Transfer, "send", lambda self: self.array.fill(1))
    else:
        right = cupy_ops.CupyOps.to_host
        monkeypatch.setattr(
            cupy_ops.CupyOps,
            "to_host",
            lambda self, array: right(self, array) * (array.size < cupy_ops.MOST_STAGED // 4),
        )
    assert f"computes something wrong: {operation} (" in str(device.gpu_problem())


def test_an_operation_that_raises_is_wrong(fresh, cuda, counters, monkeypatch):
    from gpumlp.backend.cuda.cupy_ops import CupyOps

    def fail(self, *arguments, **options):
        raise RuntimeError("an illegal memory access\nwas encountered")

    monkeypatch.setattr(CupyOps, "activate", fail)
    says = r"wrong: activate \(identity, float32\): RuntimeError: an illegal memory access was enc"
    with pytest.raises(RuntimeError, match=says):
        device.resolve("cuda")


def test_no_memory_is_not_a_wrong_result(fresh, cuda, counters, monkeypatch):
    from gpumlp.backend.cuda.cupy_ops import CupyOps

    def fail(self, *arguments, **options):
        raise MemoryError("nothing left")

    with monkeypatch.context() as full:
        full.setattr(CupyOps, "gemm", fail)
        problem = str(device.gpu_problem())
    assert "nothing left" in problem and "is free" in problem and "wrong" not in problem
    assert device.gpu_problem() is None  # it is tried again in the same process


# ------------------------------------------------------------------ what follows


def test_cuda_is_an_error(fresh, few, broken):
    says = r"GPU 0 computes something wrong: gemm \(a b, .*`gpumlp info --check`.*device=\"cpu\""
    with pytest.raises(RuntimeError, match=says):
        device.resolve("cuda:0")


def test_auto_warns_once_and_takes_the_cpu(fresh, few, broken, runs):
    with pytest.warns(RuntimeWarning, match=r"wrong: gemm \(a b, .* Using the CPU"):
        assert device.resolve("auto") == "cpu"
    assert device.resolve("auto") == "cpu"
    assert runs == ["cuda:0"]  # it is not run again in the same process


def test_zero_switches_it_off(fresh, broken, runs, monkeypatch):
    monkeypatch.setenv(selfcheck.VARIABLE, "0")
    assert device.resolve("cuda") == "cuda:0"
    assert runs == []


# ------------------------------------------------------------------ when it runs


def test_what_passed_is_remembered(fresh, few, runs, cuda, monkeypatch):
    for _ in range(2):
        assert device.resolve("auto") == "cuda:0"
    forget(monkeypatch)
    assert device.resolve("cuda") == "cuda:0"
    assert runs == ["cuda:0"]
    assert len(list(fresh.iterdir())) == 1


def test_what_failed_is_not(fresh, few, runs, broken, monkeypatch):
    for _ in range(2):
        assert device.gpu_problem() is not None
        forget(monkeypatch)
    assert runs == ["cuda:0", "cuda:0"]
    assert not list(fresh.iterdir())


def other_text(monkeypatch):
    sound = sources.text
    monkeypatch.setattr(sources, "text", lambda name: sound(name) + "\n// another")


def other_gpu(monkeypatch):
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(0) | {"uuid": b"another"}
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda index: properties)


CHANGES = {
    "driver": lambda patch: patch.setattr(driver, "driver_version", lambda: "999.1"),
    "CuPy": lambda patch: patch.setattr("cupy.__version__", "99.0"),
    "gpumlp": lambda patch: patch.setattr(selfcheck, "__version__", "99.0"),
    "cuBLASLt": lambda patch: patch.setattr(selfcheck, "cublaslt_version", lambda: "99.0"),
    "NVRTC": lambda patch: patch.setattr(selfcheck, "nvrtc_version", lambda: "99.0"),
    "kernels": other_text,
    "GPU": other_gpu,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_new_is_checked_again(fresh, few, runs, cuda, counters, monkeypatch, change):
    for turn, expected in enumerate((1, 2, 2)):
        if turn == 1:
            change(monkeypatch)
        forget(monkeypatch)
        assert device.gpu_problem() is None
        assert len(runs) == expected


@pytest.mark.parametrize("spoil", WAYS_TO_SPOIL.values(), ids=WAYS_TO_SPOIL)
def test_a_damaged_file_is_no_answer(fresh, few, runs, cuda, monkeypatch, spoil):
    assert device.gpu_problem() is None
    (path,) = fresh.iterdir()
    kept = path.read_bytes()
    spoil(path)
    forget(monkeypatch)
    assert device.gpu_problem() is None
    assert len(runs) == 2
    assert path.read_bytes() == kept


def no_home():
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [True, False])
def test_without_a_cache_it_runs_in_each_process(fresh, few, runs, cuda, monkeypatch, home):
    if home:
        fresh.parent.touch()  # in which nothing can be made
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    for _ in range(2):
        assert device.resolve("cuda") == device.resolve("auto") == "cuda:0"
        forget(monkeypatch)
    assert len(runs) == 2


# ------------------------------------------------------------------ gpumlp info


def test_info_says_whether_there_is_a_check(monkeypatch, capsys):
    assert run("info") == 0
    assert "\ncheck     none when a GPU is first used (GPUMLP_CHECK=0)\n" in capsys.readouterr().out
    monkeypatch.delenv(selfcheck.VARIABLE)
    assert "GPUMLP_CHECK=0 switches it off" in selfcheck.state()


def test_info_prints_the_table(few, device, capsys):
    assert run("info", "--check", device) == 0
    printed = capsys.readouterr().out
    head, table = printed.split("\noperation ")
    for name in ("gpumlp", "Python", "NumPy", "CuPy", "driver", "checked"):
        assert re.search(rf"^{name} +\S", head, re.MULTILINE)
    assert ("cuBLASLt" in head) == (device == "cuda")
    rows = table.splitlines()[1:]
    assert [row.endswith("  ok") for row in rows[: len(few)]] == [True] * len(few)
    assert re.fullmatch(rf"{len(few)} checks in .* s, 0 failed", rows[-1])
    assert max(map(len, table.splitlines())) <= 90


def test_info_of_a_wrong_gpu_is_an_exit_code(fresh, few, broken, capsys):
    assert run("info", "--check") == 1  # auto is that GPU, although it is not used otherwise
    printed = capsys.readouterr().out
    wrong = sum(case.operation == "gemm" for case in few)
    assert printed.count("  FAILED\n") == wrong
    assert f", {wrong} failed\n    gemm (a b, M = 3, float32)\n" in printed
    assert re.search(r"^auto +cpu \(GPU 0 computes something wrong: gemm", printed, re.MULTILINE)


def test_info_of_the_cpu_checks_what_computes_there(few, monkeypatch, capsys):
    def wrong(self, a, b, out, **options):
        raise FloatingPointError("two\nlines")

    monkeypatch.setattr(type(backend.get("cpu")), "gemm", wrong)
    assert run("info", "--check", "cpu") == 1
    assert "FAILED\n    FloatingPointError: two lines\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("gpu", "--check: expected auto, cpu, cuda or cuda:<number>"),
        ("cuda:7", "there is no GPU number 7"),
    ],
)
def test_info_of_no_device_is_an_error(cuda, counters, asked, says, capsys):
    assert run("info", "--check", asked) == 2
    assert says in capsys.readouterr().err


def test_info_without_memory_is_an_error(few, cuda, monkeypatch, capsys):
    from gpumlp.backend.cuda.cupy_ops import CupyOps

    def fail(self, *arguments, **options):
        raise MemoryError("nothing left")

    monkeypatch.setattr(CupyOps, "gemm", fail)
    assert run("info", "--check", "cuda") == 2
    assert "cuda:0 has no memory left for the check (nothing left)" in capsys.readouterr().err
