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
from benchmarks.gpu import probes, processes, stages, summary
from benchmarks.gpu.processes import Task
from benchmarks.gpu.stages import Skip, Stage
from benchmarks.machine import ROOT

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
    (kept,) = folder.glob("20*.json")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d-dry-run", kept.stem)
    results = json.loads(kept.read_text())
    assert not results["errors"], done.stdout + done.stderr
    of = results["stages"]
    assert {stage["closed"] for stage in of.values()} == {"done"}
    failed = {name for name, stage in of.items() if "failed" in stage["outcomes"]}
    assert failed == {"racecheck"}, done.stdout
    suites = {"ways", "streaming", "operations", "training", "stacks"}
    assert all(stage["outcomes"].get("passed") for name, stage in of.items() if name not in suites)
    assert done.returncode == 1 and not done.stderr
    text = (folder / summary.TEXT).read_text()
    assert len(text) < SHOWN and done.stdout.endswith(text)
    said = [line for line in text.splitlines() if line.startswith("FAILED")]
    (line,) = said
    assert re.search(r"test_check\[.*, compute-sanitizer and \d more: Error: Race", line)
    assert "train_persistent+0x80" in line
    machine = results["machine"]
    assert machine["versions"]["numpy"] == np.__version__ and machine["gpus"][0]["cuda"]
    (first, *_) = results["training"]
    assert first["over_limit"] > 0 and "JAX" in results["absent"]
    assert all(
        results[part] for part in ("kernel", "algorithms", "streaming", "operations", "stacks")
    )
    assert {goal["met"] for goal in results["goals"]} >= {None}
    rounded = of["tf32"]["tests"]
    figures = {name.partition("[")[2]: test["figures"] for name, test in rounded.items()}
    assert figures["tf32-shape1]"]["factors are"] == "rounded to the nearest"
    assert figures["float32-shape1]"]["factors are"] == "not rounded"
    assert "test_rounding[tf32-shape1]: factors are rounded to the nearest, ms" in text

    # What failed is run again, in the place of what there was.
    sanitizer(tmp_path, SANITIZER.replace("racecheck", "none"))
    names = {path.name for path in folder.iterdir()}
    again = run_command("--dry-run", "--results", folder, "--only", "racecheck", path=tmp_path)
    assert again.returncode == 0, again.stdout
    assert "\nALL THAT RAN PASSED" in again.stdout and "Race" not in again.stdout
    summed = run_command("--dry-run", "--summary", folder)
    assert summed.returncode == 0 and summed.stdout.endswith((folder / summary.TEXT).read_text())
    assert {path.name for path in folder.iterdir()} == names
    refused = run_command("--results", folder)
    assert refused.returncode == 2 and "has the records of a run" in refused.stdout


# ------------------------------------------------------------------ stages that break

TESTS = """
import os, pytest, time
import numpy as np
from benchmarks.gpu import plugin
plugin.unusable = lambda: UNUSABLE

def test_measures(cuda, record_property): record_property("ms", np.float32(1.5))
def test_good(device): pass
def test_of_operations(ops): pass
def test_of_the_cpu(): assert 0
def test_counts(cuda, counters): assert 0
def test_raises(cuda): raise ValueError("not like this")
@pytest.mark.skip(reason="no wheel")
def test_skipped(cuda): pass
@pytest.fixture
def broken():
    yield
    raise RuntimeError("at the end")
def test_broken(cuda, broken): pass
def test_crashes(cuda): os.abort()
def test_exits(cuda): os._exit(7)
def test_hangs(cuda): time.sleep(60)
def test_last(cuda): pass
"""
CONFTEST = """
import pytest
def pytest_generate_tests(metafunc):
    for name in ("device", "ops"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, ["cpu", "cuda"])
@pytest.fixture
def cuda(): return "cuda"
@pytest.fixture
def counters(): pass
"""


def stage_of(folder: Path, text: str, name="broken", jobs=1) -> Stage:
    """A stage of these tests."""
    (folder / "conftest.py").write_text(CONFTEST)
    file = folder / f"test_{name}.py"
    file.write_text(text)
    options = ["-c", "/dev/null", f"--rootdir={folder}"]
    return Stage(name, 1, 2, stages.shared([str(file)], jobs, options), jobs)


@pytest.fixture
def only(monkeypatch):
    """Lets a run have these stages alone."""

    def use(*chosen):
        monkeypatch.setattr(command, "STAGES", chosen)
        monkeypatch.setattr(summary, "STAGES", chosen)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield use
    for number, handler in handlers.items():
        signal.signal(number, handler)


def run_stages(folder: Path) -> int:
    return command.main(["--results", str(folder / "results"), "--seconds", "60"])


@pytest.mark.parametrize("unusable", [False, True])
def test_no_test_spoils_another(only, tmp_path, capsys, unusable):
    """Neither by a crash nor, if the GPU is of no use to its process any more, by an error."""
    only(stage_of(tmp_path, TESTS.replace("UNUSABLE", str(unusable))))
    assert run_stages(tmp_path) == 1
    tests = processes.read(tmp_path / "results")["broken"]["tests"]
    tests = {name.rpartition("::test_")[2]: test for name, test in tests.items()}
    outcomes = {name: test["outcome"] for name, test in tests.items()}
    failed = {"raises", "broken", "crashes", "exits", "hangs"}
    passed = {"measures", "good[cuda]", "of_operations[cuda]", "last"}
    assert outcomes == dict.fromkeys(failed, "failed") | dict.fromkeys(passed, "passed") | {
        "skipped": "skipped"
    }
    assert tests["measures"]["figures"] == {"ms": "1.5"}
    errors = {name: test["error"] for name, test in tests.items()}
    assert re.fullmatch(r"ValueError: not like this @ .*test_broken.py:\d+", errors["raises"])
    assert "no wheel" in errors["skipped"] and "at the end" in errors["broken"]
    assert re.search(r"ended with -6: Fatal Python error: Aborted @ .*\.py:\d+", errors["crashes"])
    assert "ended with 7" in errors["exits"]
    assert re.search(r"ended with 1: Timeout \(0:00:02\)! @ .*\.py:\d+", errors["hangs"])
    begun = (tmp_path / "results" / processes.LOG).read_text().count("==== broken")
    assert begun == (6 if unusable else 4)
    said = capsys.readouterr().out
    assert "\nNOT PASSED" in said and "crashes: its process ended with -6" in said


def test_shares_of_a_stage_are_all_of_it(only, tmp_path):
    text = "import pytest\n@pytest.mark.parametrize('i', range(7))\ndef test_it(i, cuda): pass\n"
    only(stage_of(tmp_path, text, jobs=3))
    assert run_stages(tmp_path) == 0
    tests = processes.read(tmp_path / "results")["broken"]["tests"].values()
    shares = [test["process"] for test in tests]
    assert len(tests) == 7
    assert [shares.count(f"{i} of 3") for i in (1, 2, 3)] == [3, 2, 2]


@pytest.mark.parametrize(
    "text, outcome", [("import no_such_module", "failed"), ("def test_of_the_cpu(): 1 / 0", None)]
)
def test_a_file_without_tests(only, tmp_path, text, outcome):
    only(stage_of(tmp_path, text))
    assert run_stages(tmp_path) == 1
    tests = processes.read(tmp_path / "results")["broken"]["tests"]
    assert [test["outcome"] for test in tests.values()] == [outcome] * (outcome is not None)
    assert outcome is None or "no_such_module" in str(tests)


# The second test waits in a child, until it is killed or there is a file "end".
WAITS = """
import subprocess, sys
CHILD = '''
import os, time
while not os.path.exists("end"):
    open("alive", "a").write("x")
    time.sleep(0.05)
'''
def test_measures(cuda, record_property): record_property("ms", 1.5)
def test_waits(cuda): subprocess.run([sys.executable, "-c", CHILD], cwd=FOLDER)
def test_is_too_late(cuda): pass
"""
CUT_OFF = """
import sys
from pathlib import Path
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import summary
from tests.benchmarks.test_benchmarks_gpu import WAITS, stage_of
folder = Path(sys.argv[1])
text = WAITS.replace("FOLDER", repr(str(folder)))
stages = [stage_of(folder, text, name)._replace(most=600) for name in ("broken", "stacks")]
command.STAGES = summary.STAGES = stages
sys.exit(command.main(["--results", str(folder / "results"), "--seconds", "600"]))
"""


def grows(file: Path) -> bool:
    size = file.stat().st_size
    time.sleep(0.3)
    return file.stat().st_size > size


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_cut_off_keeps_what_it_had(only, tmp_path, number):
    asked = [sys.executable, "-c", CUT_OFF, str(tmp_path)]
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
            assert re.search("for lack of time without .*test_waits, .*test_is_too_late", said)
    finally:
        (tmp_path / "end").touch()
    only(*(stage_of(tmp_path, "", name) for name in ("broken", "stacks")))
    results = summary.merge(tmp_path / "results")["stages"]
    assert "closed" not in results["broken"] or results["broken"]["closed"] == "cut off"
    assert results["stacks"]["closed"] == "not begun"
    tests = {name.rpartition("::")[2]: test for name, test in results["broken"]["tests"].items()}
    assert tests["test_measures"]["figures"] == {"ms": 1.5}
    # Killed, it may not have come to write down what it did not begin.
    if number != signal.SIGKILL or "test_is_too_late" in tests:
        assert tests["test_is_too_late"]["outcome"] == "not begun"


def test_a_process_whose_time_is_over_ends_with_all_that_it_started(tmp_path):
    alive = tmp_path / "alive"
    loop = f"while :; do echo x >>{alive}; sleep 0.05; done & wait"
    task = Task(str(tmp_path), "broken", 600.0, time.time() + 3)
    task.write(limit=3)
    processes.follow(task, ["sh", "-c", loop])
    assert alive.exists() and not grows(alive) and not processes.running


def test_what_cannot_begin_is_said(only, tmp_path, capsys):
    def no_module(task):
        yield task, [sys.executable, "-c", "import no_such_module"]

    def no_tool(task):
        raise Skip("compute-sanitizer is not on PATH")

    only(*(Stage(of.__name__, 1, 1, of) for of in (no_module, no_tool)))
    assert run_stages(tmp_path) == 1
    said = capsys.readouterr().out
    assert re.search(r"FAILED process : .*ModuleNotFoundError: .*no_such_module", said)
    assert "no_tool: skipped, compute-sanitizer is not on PATH" in said


def test_a_stage_without_enough_time_says_so(only, tmp_path, capsys):
    only(stage_of(tmp_path, "import time\ndef test_long(cuda): time.sleep(60)")._replace(most=600))
    assert command.main(["--results", str(tmp_path / "results"), "--seconds", "8"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"broken: out of time, \d of \d s, 1 cut short", said)
    assert "for lack of time without test_broken.py::test_long" in said


def test_without_a_device_nothing_else_is_tried(only, tmp_path, capsys):
    text = "def test_device(cuda): raise RuntimeError('no driver')"
    only(stage_of(tmp_path, text, "device"), stage_of(tmp_path, TESTS))
    assert run_stages(tmp_path) == 1
    said = capsys.readouterr().out
    assert "nothing else is tried" in said and "RuntimeError: no driver" in said
    assert "broken: not begun" in said


def test_of_nothing_nothing_has_passed(tmp_path, capsys):
    assert command.main(["--summary", str(tmp_path)]) == 1
    assert "device: not begun" in capsys.readouterr().out


def test_the_files_that_are_left_out_touch_no_gpu(tmp_path):
    chosen = stages.test_files()
    assert [Path(file).stem for file in chosen[:2]] == ["test_bf16", "test_cublaslt"]
    assert set(stages.FIRST) <= {Path(file).stem.removeprefix("test_") for file in chosen}
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    left = [file for file in files if file not in chosen]
    assert len(left) + len(chosen) == len(files)
    task = Task(str(tmp_path), "tests", 60.0, time.time() + 300)
    task.write(limit=300)
    options = ["--collect-only", "-q", "-p", "benchmarks.gpu.plugin", "-p", "no:cacheprovider"]
    code, text = processes.run([sys.executable, "-m", "pytest", *options, *left], task)
    assert code == 0 and not processes.read(tmp_path)["tests"]["tests"], text


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
    (report,) = processes.sanitizer_reports(textwrap.dedent(text)).items()
    assert report[0] == "gather" and report[1].startswith("Invalid __global__ read of size 4 bytes")
    assert "gather+0x50" in report[1] and "out of bounds" in report[1]


def test_a_summary_is_short_and_begins_with_what_failed(tmp_path):
    def write(stage, tests):
        task = Task(str(tmp_path), stage, 1.0, 0.0)
        task.write(limit=50)
        for name, (outcome, error, figures) in tests.items():
            task.end(name, outcome, error, **figures)
        task.write(name="too late", outcome=processes.PLANNED)
        task.write(closed="done", seconds=40.0)

    failed = {f"test {i}": ("failed", "the same", {}) for i in range(300)}
    write("checks", {"other": ("failed", "x" * 900, {})} | failed)
    write("tf32", {f"{i} x 3": ("passed", "", {"ms": i / 3}) for i in range(900)})
    with (tmp_path / processes.RECORDS).open("a") as file:
        file.write('{"stage": "cut sh')
    text, passed = summary.write(tmp_path)
    assert not passed and len(text) < SHOWN and "the rest is in the JSON" in text
    assert text.startswith("NOT PASSED") and "numpy" in text.splitlines()[1]
    assert "FAILED test 0 and 299 more: the same" in text
    assert text.index("FAILED other: xxx") < text.index("checks: done, 40 of 50 s, 301 failed")
    assert max(map(len, text.splitlines())) <= summary.MOST_LINE
    (kept,) = tmp_path.glob("20*.json")
    assert len(json.loads(kept.read_text())["stages"]["tf32"]["tests"]) == 901


def test_the_stages_are_those_of_the_readme():
    text = (ROOT / "benchmarks" / "README.md").read_text()
    table = text.partition("| stage | seconds")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in row.split("|")[1:3]] for row in table.splitlines()[2:]]
    rows = [
        (name, float(seconds))
        for names, times in cells
        for name, seconds in zip(names.split(", "), times.split(" + "), strict=True)
    ]
    assert rows == [(stage.name, stage.seconds) for stage in stages.STAGES]
    assert f"In {stages.SECONDS} seconds" in text


# ------------------------------------------------------------------ answers before times


def ignored(name, value):
    """In the place of record_property."""


def test_products_that_are_wrong_are_no_figure(cuda, monkeypatch):
    ops = type(probes.backend.get(probes.DEVICE))
    gemm = ops.gemm

    def wrong(self, a, b, out, **options):
        gemm(self, a, b, out, **options)
        out[:, -1, -1] *= np.float32(1.01)

    monkeypatch.setattr(ops, "gemm", wrong)
    with pytest.raises(AssertionError, match="off by"):
        probes.test_rounding("tf32", (5, 4, 3), ignored)
