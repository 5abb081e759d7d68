"""Sequences of compiled calls, whose pieces threads share: order, all pieces once, forks."""

import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import gpumlp
from gpumlp.backend.cpu import blas, compiler, pool, sequence
from gpumlp.backend.cpu.host_ops import HostOps
from gpumlp.backend.cpu.sequence import Compiled
from tests.helpers import shared_calls
from tests.helpers.commandline import without_notes
from tests.helpers.shared_calls import program
from tests.helpers.waiting import HANGS as WAIT
from tests.simt import sanitize

ASLEEP = 0.005  # seconds after which every thread without work sleeps


@pytest.fixture(autouse=True)
def compiled():
    if compiler.problem():
        pytest.skip(f"nothing can be compiled for the CPU: {compiler.problem()}")


@pytest.fixture
def run():
    return HostOps()._run()


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
@pytest.mark.parametrize("pause", [0, ASLEEP], ids=["at once", "after a sleep"])
def test_every_piece_once_and_in_order(run, pieces, pause):
    shared_calls.check_order(run, pieces, repeats=20 if pause else 2000, pause=pause)


@pytest.mark.parametrize("pieces", [2, 3])
@pytest.mark.parametrize("pause", [0, ASLEEP], ids=["at once", "after a sleep"])
def test_pieces_run_at_the_same_time(run, pieces, pause):
    """Each waits until all have come."""
    for _ in range(5):
        time.sleep(pause)
        counts = np.zeros(pieces + 1, np.int64)
        shared_calls.do(run, [program("meet", counts, pieces)])
        assert counts.tolist() == [pieces, *[1] * pieces]


def test_whoever_shares_a_call_sleeps_until_a_slow_piece_has_ended(run):
    counts, nanoseconds = np.zeros(2, np.int64), int(ASLEEP * 1e9)
    for times in range(1, 4):
        shared_calls.do(run, [program("slow", counts, 2, nanoseconds)])
        assert counts.tolist() == [times, times]


def test_the_first_to_come_has_the_helpers(run):
    """Two threads with sequences of their own: one of them works alone, and both are right."""
    errors = []

    def work():
        try:
            shared_calls.check_order(run, 3, repeats=500)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not errors and not any(thread.is_alive() for thread in threads)


def test_sequences_beside_one_another(run):
    """Each in its order, and calls with pieces within them."""
    for count in (2, 3):
        counts = [np.zeros(4, np.int64) for _ in range(count)]
        sums = [np.zeros(1, np.int64) for _ in range(count)]
        calls = [
            [program("count", counts[i], 4), program("total", counts[i], 1, sums[i].ctypes.data)]
            for i in range(count)
        ]
        for repeat in range(1, 100):
            (call,) = sequence.in_parallel(calls, run)
            shared_calls.do(run, [call])
            assert [each.tolist() for each in counts] == [[repeat] * 4] * count
            assert [int(each[0]) for each in sums] == [4 * repeat] * count


def test_what_needs_python_keeps_its_place(run):
    """Between compiled calls, which are joined up to it and from it on."""
    counts, seen = np.zeros(2, np.int64), []
    count, look = program("count", counts, 2), lambda: seen.append(counts.tolist())
    calls = sequence.joined([look, count, count, look, count, look], run)
    assert [isinstance(call, Compiled) for call in calls] == [False, True, False, True, False]
    for call in calls:
        call()
    assert seen == [[0, 0], [2, 2], [3, 3]]
    assert sequence.in_parallel([[count, look], [count]], run) == [count, look, count]


def test_where_nothing_shares_calls_are_made_here():
    counts = np.zeros(3, np.int64)
    calls = [program("count", counts, 3)]
    assert sequence.joined(calls, None) == calls
    assert sequence.in_parallel([calls, calls], None) == calls * 2
    calls[0]()
    assert counts.tolist() == [1, 1, 1]


def test_what_is_called_lives_as_long_as_the_sequence(run):
    def make():
        counts = np.zeros(3, np.int64)
        seen.append(counts.ctypes.data)
        return sequence.joined([program("count", counts, 3)], run)

    seen: list = []
    (call,) = make()
    others = [np.zeros(3, np.int64) for _ in range(100)]  # would be given the memory
    call()
    assert not any(each.any() for each in others)
    assert seen[0] not in [each.ctypes.data for each in others]


def test_the_operations_say_how_many_threads_there_are(monkeypatch):
    if blas.find() is None or blas.find().threads is None:
        pytest.skip("NumPy's BLAS has threads that cannot be told from here")
    net = gpumlp.MLP((3, 2))
    ops = net.ops
    monkeypatch.setattr(pool, "_cores", lambda: 5)
    assert ops.threads(net.shape) == 5
    found = []
    pool.run(lambda i: found.append(ops.threads(net.shape)), 5)
    assert found == [1] * 5  # who works on a piece shares nothing
    monkeypatch.setattr(ops, "_run", lambda: None)
    assert ops.threads(net.shape) == 1


def in_a_process(code):
    code = "from tests.helpers import shared_calls\nrun = shared_calls.run()\n" + textwrap.dedent(
        code
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert not without_notes(done.stderr)
    return done.stdout


def test_a_forked_process_has_its_own_threads():
    """Also where another thread was in the midst of a call as it was forked."""
    told = in_a_process("""
        import os, threading
        shared_calls.check_order(run, 3, repeats=100)
        stop = threading.Event()
        def others():
            while not stop.is_set():
                shared_calls.check_order(run, 3, repeats=10)
        thread = threading.Thread(target=others)
        thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                shared_calls.check_order(run, 3, repeats=100)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        stop.set()
        thread.join()
        print("done")
    """)
    assert told == "done\n"


def test_a_process_ends_beside_its_threads():
    assert in_a_process("shared_calls.check_order(run, 3, repeats=10); print('done')") == "done\n"


def test_under_thread_sanitizer(tmp_path):
    done = sanitize.run(
        "thread",
        ["-m", "tests.helpers.shared_calls"],
        env={"CXX": "g++ -fsanitize=thread", "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Sanitizer" not in done.stderr
    assert "every check passed" in done.stdout
