"""Which tests run a line, and which of them first."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FEW = 4  # tests of each file that run before the others of any
# Kernels run in processes of their own there, which note nothing.
BY_CHILDREN = ("tests/backend/test_sanitizers.py", "tests/backend/test_cubin.py")
# They look at what modules define, and need not run it.
OF_DEFINITIONS = ("tests/test_defaults.py",)
# These ask what is not a mutant's to answer: the texts of sources, this tool, other installations.
LEFT_OUT = ("seeded_bugs", "mutants", "versions", "benchmarks*")


def environment(tree: Path) -> dict[str, str]:
    """For the tests of a copy of the tree; what they compile is kept apart from the user's."""
    cache = tree.parent / "cache"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = [str(tree), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "XDG_CACHE_HOME": str(cache)}
    return os.environ | own


def trace(tree: Path, out: Path, processes: int, *files: str) -> None:
    """Run every test, or those of some files, and note in `out` what each reaches."""
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.mutants.reached"]
    command += ["-n", str(processes), "--dist", "loadfile", "-o", "faulthandler_timeout=1800"]
    command += [f"--ignore-glob=*/test_{each}.py" for each in LEFT_OUT] + [*files]
    with (out / "pytest.log").open("w") as log:
        subprocess.run(
            command,
            cwd=tree,
            env=environment(tree) | {"GPUMLP_REACHED": str(out)},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )


class Reached:
    """What `trace` has noted in a folder."""

    def __init__(self, folder: Path):
        self.seconds: dict[str, float] = {}  # of the tests that pass
        self._programs: dict[str, list[str]] = defaultdict(list)  # part -> tests
        for file in folder.glob("tests-*.json"):
            noted = json.loads(file.read_text())
            self.seconds |= noted["seconds"]
            for test, parts in noted["programs"].items():
                for part in parts:
                    self._programs[part].append(test)
        from coverage import CoverageData

        self._data = []
        for file in folder.glob("coverage-*"):
            data = CoverageData(str(file))
            data.read()
            self._data.append(data)

    def tests(self, file: str, lines: range, once: bool) -> list[str]:
        """Those that run the lines, the nearest first; then near ones that run the file's others:
        what is computed once a process, another test may have asked for."""
        near = functools.partial(nearness, file)
        whole = self._of_file(file)
        everywhere = {test for tests in whole.values() for test in tests} & self.seconds.keys()
        here = everywhere
        if not once and file.endswith(".py"):
            here = {test for line in lines for test in whole.get(line, ())} & everywhere
            here = here or everywhere
        rest = {test for test in everywhere - here if near(test)}
        found = self._in_order(here, near) + self._in_order(rest, near)
        if file.startswith("kernels/") and not file.startswith("kernels/cpu/"):
            found += BY_CHILDREN
        if once:
            found += OF_DEFINITIONS
        return found

    @functools.lru_cache(8)  # noqa: B019
    def _of_file(self, file: str) -> dict[int, set[str]]:
        if not file.endswith(".py"):
            return {0: set(self._programs[Path(file).name])}
        lines: dict[int, set[str]] = defaultdict(set)
        for data in self._data:
            for measured in data.measured_files():
                if measured.endswith("/" + file):
                    for line, tests in data.contexts_by_lineno(measured).items():
                        lines[line].update(tests)
        return lines

    def _in_order(self, tests: set[str], near) -> list[str]:
        """The fastest few of each file, then the others; near files first."""
        files: dict[str, list[str]] = defaultdict(list)
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            files[test.partition("::")[0]].append(test)
        ordered = sorted(files, key=lambda file: (-near(file), self.seconds[files[file][0]], file))
        first = [test for file in ordered for test in files[file][:FEW]]
        return first + [test for file in ordered for test in files[file][FEW:]]


def nearness(file: str, test: str) -> int:
    """How many words the names of a source and of a file of tests have in common."""
    words = re.findall(r"[a-z]{3,}", file.partition("/")[2].partition(".")[0])
    if file.startswith("kernels/"):
        words.append("operations")
    of_test = re.findall(r"[a-z0-9]{3,}", Path(test.partition("::")[0]).stem.removeprefix("test_"))
    return sum(any(a in b or b in a for b in of_test) for a in words)
