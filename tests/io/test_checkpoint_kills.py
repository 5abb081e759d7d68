"""Trainings killed with SIGKILL, or interrupted, at any moment: the newest checkpoint loads, only
the work since is lost, and the resumed run ends with the same bits.

Each is a fork of a helper process that has everything imported and a single thread.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.waiting import HANGS

ROOT = Path(__file__).parents[2]
KILLS = 100
RESUMED = 5  # every fifth is trained to its end
SEED = 1


def run(job, *arguments) -> dict:
    """What a job of tests/helpers/checkpointing.py reports."""
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # Ctrl-C may come between the opening of a file and the `with` that closes it.
    warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, "-m", "tests.helpers.checkpointing", job, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **one_thread},
        timeout=HANGS,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def test_killed_at_random_moments(tmp_path):
    found = run("kill_at_random", tmp_path, KILLS, SEED, RESUMED)
    assert not found["wrong"]
    assert found["killed"] >= KILLS
    # The moments were spread over the training: early ones, late ones, and within writes.
    assert len(set(found["epochs"])) >= 6
    assert found["amid a write"] >= 1


def test_killed_at_each_call_of_a_write(tmp_path):
    found = run("kill_at_each_call", tmp_path)
    assert not found["wrong"]
    calls = ["open", "flock", "fsync", "replace", "open", "fsync", "unlink"]
    assert found["points"] == [f"{when} {call}" for call in calls for when in ("before", "after")]


def test_interrupted_at_random_moments(tmp_path):
    found = run("interrupt_at_random", tmp_path, 20, SEED)
    assert not found["wrong"]
    assert found["interrupted"] >= 20
    assert found["within an epoch"] >= 1
