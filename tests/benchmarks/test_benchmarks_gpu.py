"""`python -m benchmarks.gpu`: a dry run of all of it, and what becomes of stages that break."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import probes, processes, records, stages, summary
from benchmarks.gpu.records import Skip, Task
from benchmarks.gpu.stages import Stage
from benchmarks.machine import ROOT
from gpumlp.training.rows import Rows

SHOWN = 12_000  # characters of an output's end

# What compute-sanitizer says of a hazard, in the middle of what the program itself prints.
SANITIZER = f"""#!{sys.executable}
import subprocess, sys
tool, rest = sys.argv[2], sys.argv[sys.argv.index({sys.executable!r}):]
print("========= COMPUTE-SANITIZER", flush=True)
done = subprocess.run(rest)
if tool == "racecheck" and done.returncode == 0:
    print("========= Error: Race reported between Write access at train_persistent+0x40")
    print("=========     and Read access at train_persistent+0x80 [4 hazards]")
    print("========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)")
    sys.exit({processes.SANITIZER_FOUND})
sys.exit(done.returncode)
"""


def run_command(*arguments, path=None):
    environment = dict(os.environ)
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    asked = [sys.executable, "-m", "benchmarks.gpu", *map(str, arguments)]
    return subprocess.run(asked, env=environment, cwd=ROOT, capture_output=True, text=True)


def sanitizer(folder: Path, text: str):
    program = folder / "compute-sanitizer"
    program.write_text(text)
    program.chmod(0o755)


def test_a_dry_run_goes_through_every_stage(counters, tmp_path):
    folder = tmp_path / "results"
    sanitizer(tmp_path, SANITIZER)
    done = run_command("--dry-run", "--results", folder, path=tmp_path)
    results = summary.merge(folder)
    outcomes = {name: stage["outcomes"] for name, stage in results["stages"].items()}
    assert all(of["passed"] > 0 for of in outcomes.values()), done.stdout + done.stderr
    assert {name for name, of in outcomes.items() if "failed" in of} == {"racecheck"}
    assert done.returncode == 1 and not done.stderr
    text = (folder / summary.TEXT).read_text()
    assert len(text) < SHOWN and done.stdout.endswith(text)
    said = [line for line in text.splitlines() if line.startswith("FAILED")]
    (line,) = said
    assert "many blocks, compute-sanitizer and 1 more: Error: Race" in line
    assert "train_persistent+0x80" in line
    names = {path.name for path in folder.iterdir()}
    (kept,) = names - {records.FILE, processes.LOG, summary.TEXT}
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-\d{4}-dry-run\.json", kept)
    written = json.loads((folder / kept).read_text())
    assert written == results and written["machine"]["numpy"] == np.__version__
    assert written["machine"]["gpus"] and written["machine"]["cuda_driver"]
    training = written["stages"]["training"]["items"]["5-8-3"]["figures"]
    assert training["over_limit"] > 0 and training["absent"]["JAX scan"]
    rounded = written["stages"]["tf32"]["items"]
    assert rounded["tf32 37x29x13"]["figures"]["factors are"] == "rounded to the nearest"
    assert rounded["float32 37x29x13"]["figures"]["factors are"] == "not rounded"

    # What failed is run again, in the place of what there was.
    sanitizer(tmp_path, SANITIZER.replace("racecheck", "none"))
    again = run_command("--dry-run", "--results", folder, "--only", "racecheck", path=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "\nALL THAT RAN PASSED" in again.stdout and "Race" not in again.stdout
    summed = run_command("--summary", folder)
    assert summed.returncode == 0 and summed.stdout.endswith((folder / summary.TEXT).read_text())
    assert {path.name for path in folder.iterdir()} == names
    refused = run_command("--results", folder)
    assert refused.returncode == 2 and "has the records of a run" in refused.stdout


# ------------------------------------------------------------------ stages that break

ITEMS = """
import os, sys, time
import numpy as np
from benchmarks.gpu import stages
from benchmarks.gpu.records import Skip, Task
from benchmarks.gpu.stages import Stage

def raises(error):
    raise error

def items(task):
    yield "measures", lambda: {{"ms": np.float32(1.5)}}
    yield "raises", lambda: raises(ValueError("not like this"))
    yield "skips", lambda: raises(Skip("there is no such tool"))
    yield "is wrong", lambda: {{"ms": 1.0, "error": "wrong by 3"}}
    yield "crashes", lambda: os.abort()
    yield "exits", lambda: os._exit(7)
    yield "hangs", lambda: time.sleep(60)
    yield "is reached", lambda: None
    {more}

stages.unusable = lambda: {unusable}
stages.STAGES = (Stage("broken", 1, 1, items),)
print("pid", os.getpid(), flush=True)
sys.exit(stages.work(Task.of_environment()))
"""


def of_items(more="", unusable=False):
    """A stage of these items."""
    code = ITEMS.format(more=more, unusable=unusable)

    def processes_of(task, jobs):
        yield task._replace(process="one"), [sys.executable, "-c", code]

    return Stage("broken", 1, 2, None, processes_of)


@pytest.fixture
def only(monkeypatch):
    """Lets a run have these stages alone."""

    def use(*chosen):
        monkeypatch.setattr(command, "STAGES", chosen)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield use
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("unusable", [False, True])
def test_no_item_spoils_another(only, tmp_path, capsys, unusable):
    """Neither by a crash nor, if the GPU is of no use to its process any more, by an error."""
    only(of_items(unusable=unusable))
    assert command.main(["--results", str(tmp_path), "--seconds", "60"]) == 1
    items = summary.merge(tmp_path)["stages"]["broken"]["items"]
    assert items.pop("measures")["figures"] == {"ms": 1.5}
    assert items.pop("skips")["error"] == "there is no such tool"
    assert items.pop("is wrong") | {"seconds": 0} == {
        "outcome": "failed", "seconds": 0, "error": "wrong by 3",
        "figures": {"ms": 1.0, "error": "wrong by 3"},
    }  # fmt: skip
    assert {item["outcome"] for item in items.values()} == {"failed"}
    errors = {name: item["error"] for name, item in items.items()}
    assert set(errors) == {"raises", "crashes", "exits", "hangs"}
    assert errors["raises"].startswith("ValueError: not like this @ ")
    assert re.search(r"ended with -6: Fatal Python error: Aborted @ .*\.py:\d+", errors["crashes"])
    assert "ended with 7" in errors["exits"]
    assert re.search(r"ended with 1: Timeout \(0:00:02\)! @ .*\.py:\d+", errors["hangs"])
    state = records.read(tmp_path)["broken"].items
    assert state["is reached"]["outcome"] == "passed"
    begun = (tmp_path / processes.LOG).read_text().count(" pid ")
    assert begun == (6 if unusable else 4)
    said = capsys.readouterr().out
    assert "\nNOT PASSED" in said and "FAILED broken: crashes: its process ended with -6" in said


# The second item waits in a child, until it is killed or there is a file "end".
WAITS = """
import os, subprocess, sys
from benchmarks.gpu import stages
from benchmarks.gpu.records import Task

LOOP = "while not os.path.exists('end'): open('alive', 'a').write('x'); time.sleep(0.05)"
CHILD = "import os, time\\n" + LOOP

def items(task):
    yield "measures", lambda: {"ms": 1.5}
    yield "waits", lambda: subprocess.run([sys.executable, "-c", CHILD], cwd=task.folder)
    yield "is too late", lambda: None

stages.STAGES = (stages.Stage("broken", 1, 1, items),)
sys.exit(stages.work(Task.of_environment()))
"""


def waiting(task, jobs):
    yield task._replace(most=600.0, process="one"), [sys.executable, "-c", WAITS]


CUT_OFF = """
import sys
from benchmarks.gpu import __main__ as command
from tests.benchmarks.test_benchmarks_gpu import Stage, waiting
command.STAGES = Stage("broken", 1, 1, None, waiting), Stage("stacks", 1, 1, None, waiting)
sys.exit(command.main(sys.argv[1:]))
"""


def grows(file: Path) -> bool:
    size = file.stat().st_size
    time.sleep(0.3)
    return file.stat().st_size > size


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_cut_off_keeps_what_it_had(tmp_path, number):
    asked = [sys.executable, "-c", CUT_OFF, "--results", str(tmp_path), "--seconds", "600"]
    run = subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    alive, end = tmp_path / "alive", time.monotonic() + 120
    try:
        while not alive.exists():
            assert time.monotonic() < end and run.poll() is None
            time.sleep(0.02)
        run.send_signal(number)
        said = run.communicate(timeout=60)[0]
        if number != signal.SIGKILL:
            assert not grows(alive)
            assert "broken: cut off" in said and "stacks: not begun" in said
            assert "for lack of time without waits, is too late" in said
    finally:
        (tmp_path / "end").touch()
    found = summary.merge(tmp_path)["stages"]
    assert found["broken"]["closed"] == "cut off" and found["stacks"]["closed"] == "not begun"
    assert found["broken"]["left out"][-1] == "is too late"
    assert found["broken"]["items"]["measures"]["figures"] == {"ms": 1.5}


@pytest.mark.parametrize("left, patience", [(100, 10), (9, 8), (5, None), (-3, None)])
def test_an_item_hangs_or_lacked_time(tmp_path, monkeypatch, left, patience):
    """It has failed if it had half of the time that it may take, whatever ended it."""
    monkeypatch.setattr(records.time, "time", lambda: 1000.0)
    assert Task(str(tmp_path), "broken", 10.0, 1000.0 + left).patience() == patience


def test_a_process_whose_time_is_over_ends_with_all_that_it_started(tmp_path):
    alive = tmp_path / "alive"
    loop = f"while :; do echo x >>{alive}; sleep 0.05; done & wait"
    task = Task(str(tmp_path), "broken", 600.0, time.time() + 3, process="one")
    task.write(limit=3)
    processes.follow(task, ["sh", "-c", loop])
    assert alive.exists() and not grows(alive) and not processes.running
    assert task.outcomes() == {"all of one": "not begun"}
    processes.follow(task._replace(process="two"), ["sh", "-c", loop])
    assert not grows(alive)
    assert task._replace(process="two").outcomes() == {"all of two": "not begun"}


def test_what_cannot_begin_is_said(only, tmp_path, capsys):
    def no_program(task, jobs):
        yield task, ["/no/such/program"]

    def no_module(task, jobs):
        yield task, [sys.executable, "-c", "import no_such_module"]

    def no_tool(task, jobs):
        raise Skip("compute-sanitizer is not on PATH")

    chosen = (no_program, no_module, no_tool)
    only(*(Stage(each.__name__, 1, 1, None, each) for each in chosen))
    assert command.main(["--results", str(tmp_path), "--seconds", "60"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"FAILED no_program: .*FileNotFoundError", said)
    assert re.search(r"FAILED no_module: .*ModuleNotFoundError: .*no_such_module", said)
    assert "no_tool: skipped, compute-sanitizer is not on PATH" in said


def test_without_a_device_nothing_else_is_tried(only, tmp_path, capsys):
    only(of_items('yield "device", lambda: raises(RuntimeError("no driver"))'), of_items())
    assert command.main(["--results", str(tmp_path), "--seconds", "60"]) == 1
    said = capsys.readouterr().out
    assert "nothing else is tried: RuntimeError: no driver" in said and said.count("==") == 1


def test_of_nothing_nothing_has_passed(tmp_path, capsys):
    assert command.main(["--summary", str(tmp_path)]) == 1
    assert "facts: not begun" in capsys.readouterr().out


# ------------------------------------------------------------------ tests

CONFTEST = """
import pytest
from benchmarks.gpu import plugin
plugin.unusable = lambda: True
def pytest_generate_tests(metafunc):
    for name in ("device", "ops"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, ["cpu", "cuda"])
@pytest.fixture
def cuda(): return "cuda"
@pytest.fixture
def counters(): pass
"""
TESTS = """
import os, pytest, time
def test_good(device): pass
def test_of_operations(ops): pass
def test_alone(cuda): pass
def test_of_the_cpu(): assert 0
def test_counts(cuda, counters): assert 0
def test_bad(cuda): assert 1 == 2
@pytest.mark.skip(reason="no wheel")
def test_skipped(cuda): pass
@pytest.fixture
def broken():
    yield
    raise RuntimeError("at the end")
def test_broken(cuda, broken): pass
def test_killed(cuda): os._exit(3)
def test_hangs(cuda): time.sleep(60)
def test_last(cuda): pass
"""


def pytest_of(folder, file, share=(0, 1)):
    """name -> record of the tests of this file, run by the plugin."""
    task = Task(str(folder), "tests", 2.0, time.time() + 60, process=f"{file} {share}", share=share)
    if "tests" not in records.read(folder):
        task.write(limit=60)
    options = ["-p", "benchmarks.gpu.plugin", "-p", "no:cacheprovider", "-c", "/dev/null"]
    asked = [sys.executable, "-m", "pytest", *options, f"--rootdir={folder}", str(folder / file)]
    processes.follow(task, asked)
    return records.read(folder)["tests"].items


def test_tests_of_the_gpu_are_recorded_as_they_end(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_unreadable.py").write_text("import no_such_module")
    (tmp_path / "test_none.py").write_text("def test_of_the_cpu(): assert 0")
    pytest_of(tmp_path, "test_none.py")
    pytest_of(tmp_path, "test_unreadable.py")
    found = pytest_of(tmp_path, "test_some.py")
    outcomes = {name.rpartition("::")[2]: item["outcome"] for name, item in found.items()}
    assert outcomes == {
        "test_unreadable.py": "failed",
        "test_good[cuda]": "passed",
        "test_of_operations[cuda]": "passed",
        "test_alone": "passed",
        "test_bad": "failed",
        "test_skipped": "skipped",
        "test_broken": "failed",
        "test_killed": "failed",
        "test_hangs": "failed",
        "test_last": "passed",
    }
    errors = {name.rpartition("::")[2]: item["error"] for name, item in found.items()}
    assert "no_such_module" in errors["test_unreadable.py"]
    assert re.fullmatch(r"assert 1 == 2 @ .*test_some.py:\d+", errors["test_bad"])
    assert "no wheel" in errors["test_skipped"] and "at the end" in errors["test_broken"]
    assert "ended with 3" in errors["test_killed"] and "Timeout (0:00:02)" in errors["test_hangs"]


def test_slices_of_a_file_are_all_of_it(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    text = "import pytest\n@pytest.mark.parametrize('i', range(7))\ndef test_it(i, cuda): pass\n"
    (tmp_path / "test_long.py").write_text(text)
    parts = []
    for i in range(3):
        before = set(parts)
        parts += [n for n in pytest_of(tmp_path, "test_long.py", (i, 3)) if n not in before]
        assert len(parts) == (2, 4, 7)[i]
    assert len(set(parts)) == 7


def test_the_files_that_are_left_out_touch_no_gpu(tmp_path):
    chosen = [f"test_{name}.py" for name in stages.test_files()]
    assert chosen[:4] == [
        f"test_{name}.py" for name in ("cublaslt", "cupy_ops", "training_on_gpu", "persistent")
    ]
    assert set(stages.SLICES) | set(stages.ORDER) <= set(stages.test_files())
    left = [str(p) for p in (ROOT / "tests").rglob("test_*.py") if p.name not in chosen]
    assert len(left) + len(chosen) == len(list((ROOT / "tests").rglob("test_*.py")))
    task = Task(str(tmp_path), "tests", 60.0, time.time() + 300)
    task.write(limit=300)
    options = ["--collect-only", "-q", "-p", "benchmarks.gpu.plugin", "-p", "no:cacheprovider"]
    code, lines = processes.run([sys.executable, "-m", "pytest", *options, *left], task)
    assert code == 0 and not records.read(tmp_path)["tests"].items, "\n".join(lines)


# ------------------------------------------------------------------ compute-sanitizer, summaries


def test_reports_are_of_the_check_they_come_after():
    text = """
        ========= COMPUTE-SANITIZER
        ## tanh
        ## gather
        ========= Invalid __global__ read of size 4 bytes
        =========     at gather+0x50
        =========     by thread (3,0,0) in block (1,0,0)
        =========     Address 0x7f is out of bounds
        =========     Saved host backtrace
        ========= Invalid __global__ read of size 8 bytes
        ========= ERROR SUMMARY: 2 errors"""
    (report,) = processes.reports(textwrap.dedent(text).splitlines()).items()
    assert report[0] == "gather" and report[1].startswith("Invalid __global__ read of size 4 bytes")
    assert "gather+0x50" in report[1] and "out of bounds" in report[1]


def write_items(folder, stage, items, **closed):
    task = Task(str(folder), stage, 1.0, 0.0)
    task.write(limit=50)
    task.plan([*items, "too late"])
    for name, (outcome, error, figures) in items.items():
        task.end(name, outcome, 1.0, error, figures)
    task.write(closed="done", seconds=40.0, why="", **closed)


def test_a_summary_is_short_and_begins_with_what_failed(tmp_path):
    gpu = {"name": "NVIDIA H100 80GB HBM3"}
    machine = dict.fromkeys(("processor", "cores", "blas", "not_compiled_for_cpu"))
    machine |= dict.fromkeys(("cupy", "numpy", "scikit-learn", "torch", "jax", "jaxlib"), "1")
    machine |= dict.fromkeys(("safetensors", "pytest"), "1")
    machine |= {"gpus": [gpu], "date": "2026-12-01T10:11:12+00:00", "environment": {}}
    machine["processor"] = "a processor"
    write_items(tmp_path, "facts", {"machine": ("passed", "", machine)})
    failed = {f"check {i}": ("failed", f"error {i} " + "x" * 900, None) for i in range(200)}
    failed |= {f"test {i}": ("failed", "the same", None) for i in range(300)}
    write_items(tmp_path, "checks", failed)
    shuffled = {f"{i} x 3": ("passed", "", {"ms": i / 3}) for i in range(500)}
    write_items(tmp_path, "shuffle", shuffled)
    with (tmp_path / records.FILE).open("a") as file:
        file.write('{"stage": "cut sh')
    text, passed = summary.write(tmp_path)
    assert not passed and len(text) < SHOWN and "the rest is in the JSON" in text
    assert text.startswith("NOT PASSED") and "NVIDIA H100" in text.splitlines()[1]
    assert text.index("check 0") < text.index("checks: done, 40 of 50 s, 500 failed, 1 not begun")
    assert "error 24" in text and "error 25" not in text and "and 176 other errors" in text
    assert (tmp_path / "2026-12-01-1011-nvidia-h100-80gb-hbm3.json").exists()
    failed = {f"test {i}": ("failed", "the same", None) for i in range(300)}
    write_items(tmp_path, "checks", failed)
    assert "FAILED checks: test 0 and 299 more: the same" in summary.write(tmp_path)[0]


def test_figures_decide(tmp_path):
    def products(first, timed):
        return ("passed", "", {probes.LIBRARY: first, probes.TUNED: timed, "difference": 0.0})

    def ways(operations, kernel):
        return ("passed", "", {probes.OPERATIONS: operations, probes.RESIDENT: kernel})

    items = {
        "64-64-10 16 networks: kernel": ways(10.0, 12.0),
        "64-64-10 132 networks: kernel": ways(30.0, 10.0),
        "64-100-10 tf32: products": products(10.0, 9.5),
        "64-100-10 bf16: products": products(9.8, 9.6),
    }
    write_items(tmp_path, "epochs", items)
    text, passed = summary.write(tmp_path)
    assert passed
    kernel = "stays 0.83x 64-64-10 16 networks, 3.00x 64-64-10 132 networks"
    assert f"the persistent kernel: {kernel}" in text
    assert "timed algorithms: goes 1.05x 64-100-10 tf32, 1.02x 64-100-10 bf16" in text
    assert "bf16 storage, over TF32: goes 0.99x 64-100-10 bf16" in text
    write_items(tmp_path, "epochs", {})
    assert "the persistent kernel: was not measured" in summary.write(tmp_path)[0]


def test_the_stages_are_those_of_the_readme():
    text = (ROOT / "benchmarks" / "README.md").read_text()
    table = text.partition("| stage | seconds")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in table.splitlines()[2:]]
    told = [
        (name, float(seconds))
        for names, times in rows
        for name, seconds in zip(names.split(", "), times.split(" + "), strict=True)
    ]
    assert told == [(stage.name, stage.seconds) for stage in stages.STAGES]
    assert f"In {stages.SECONDS} seconds" in text


# ------------------------------------------------------------------ answers before times


def test_an_order_with_missing_rows_is_no_figure(cuda, monkeypatch):
    assert probes.shuffle(3, 40)["ms"] > 0
    monkeypatch.setattr(Rows, "shuffle", lambda rows, seeds, epoch: rows.arrange(twice))
    twice = np.zeros((3, 40), np.int32)
    with pytest.raises(ArithmeticError, match="missing"):
        probes.shuffle(3, 40)
    twice = np.broadcast_to(np.arange(40, dtype=np.int32), (3, 40)).copy()
    with pytest.raises(ArithmeticError, match="same order"):
        probes.shuffle(3, 40)


def test_products_that_are_wrong_are_no_figure(cuda, monkeypatch):
    ops = type(probes.backend.get(probes.DEVICE))
    gemm = ops.gemm

    def wrong(self, a, b, out, **options):
        gemm(self, a, b, out, **options)
        out[:, -1, -1] *= np.float32(1.01)

    monkeypatch.setattr(ops, "gemm", wrong)
    with pytest.raises(ArithmeticError, match="off by"):
        probes.rounded("tf32", "5x4x3")


def test_ways_that_differ_are_no_figure(cuda, monkeypatch):
    network = probes.Network((5, 4, 3), 8, 12)
    assert probes.kernel_or_operations(network)[probes.RESIDENT] > 0
    step = probes.BY_NAME[probes.RESIDENT].load().step
    monkeypatch.setattr(
        probes.BY_NAME[probes.RESIDENT].load(), "step", lambda self: step(self) * 1.01
    )
    with pytest.raises(ArithmeticError, match="differs from"):
        probes.kernel_or_operations(network)
    too_large = probes.Network((3000, 40, 3), 4, 8, models=2)
    with pytest.raises(Skip, match="shared memory"):
        probes.kernel_or_operations(too_large)
