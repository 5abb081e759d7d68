"""What may come of a command line, for tests/fuzz/commands.py."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpumlp
from gpumlp.cli import main
from gpumlp.cli.error import InputError
from gpumlp.cli.run_folder import METRICS
from tests.fuzz import ACCEPTED, Fault, refused
from tests.fuzz.options import FLAGS, PREDICT, TRAIN

LONGEST = 1000  # characters of a clear message, beside what the user wrote
# A warning that says something to a user.
SAYS = re.compile("epochs")


class Expected(NamedTuple):
    """paths: of a line's files;  wrong, broken: values by option, and files, that have to be
    refused;  may_refuse: whether anything else may be."""

    paths: list[str]
    wrong: dict[str, str]
    broken: bool
    may_refuse: bool


class Ran(NamedTuple):
    """changed: files that are new, have gone or hold something else."""

    code: Any
    out: str
    err: str
    changed: set[str]


def of(argv: list[str], expected: Expected) -> tuple[str, Ran]:
    """Accepted or refused; raises a Fault if that is not as it has to be."""
    ran = _run(argv)
    told = f"{shown(argv)}\n{ran.err[-800:]}"
    said = [line for line in _sentences(ran.err) if not line.startswith("note: ")]
    for warning in (line for line in said if line.startswith("warning: ")):
        if not SAYS.search(warning):
            raise Fault(f"a warning: {_kind(warning)}", told)
    said = [line for line in said if not line.startswith("warning: ")]
    if ran.code == 0:
        if said:
            raise Fault("a complaint, and exit code 0", told)
        if expected.wrong or expected.broken:
            what = ", ".join(expected.wrong) or "a file"
            raise Fault(f"accepted what is wrong: {what}", told)
        return ACCEPTED, ran
    if ran.code != 2:
        raise Fault(f"exit code {ran.code}", told)
    if len(said) != 1:
        raise Fault("not one sentence", told)
    if not (expected.wrong or expected.broken or expected.may_refuse):
        raise Fault(f"refused what is valid: {_kind(said[0])}", told)
    _check_is_clear(argv, said[0], expected.paths, told)
    only(argv, ran, set())
    return refused(InputError(said[0])), ran


def _run(argv: list[str]) -> Ran:
    out, err, before = io.StringIO(), io.StringIO(), _files()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    after = _files()
    changed = {path for path in {*before, *after} if before.get(path) != after.get(path)}
    return Ran(code, out.getvalue(), err.getvalue(), changed)


def _files() -> dict[str, bytes]:
    """All that is in the case's folder."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def only(argv: list[str], ran: Ran, wanted: set[str]) -> None:
    """These files have come or changed, and no others."""
    wanted = {str(Path(os.path.realpath(path)).relative_to(Path.cwd())) for path in wanted}
    if ran.changed != wanted:
        told = f"{shown(argv)}\n{sorted(ran.changed)} instead of {sorted(wanted)}"
        raise Fault("files were left, lost or changed", told)


def shown(argv: list[str]) -> str:
    return f"gpumlp {' '.join(repr(each)[:80] for each in argv)}"


def _sentences(err: str) -> list[str]:
    """What is said on standard error, without the progress bars."""
    if "Traceback" in err:
        raise Fault("a traceback", err)
    bars = re.sub(r"^gpumlp: .*$|\r[^\r\n]*?epoch[^\r\n]*|^\s+$", "", err, flags=re.MULTILINE)
    if bars.strip():
        raise Fault("not a sentence", err)
    return re.findall(r"gpumlp: ([^\n]*)$", err, re.MULTILINE)


def _check_is_clear(argv, said: str, paths, told: str) -> None:
    """It names a file; or an option, and its value, unless there is none."""
    if len(said) > LONGEST + sum(len(each) for each in argv):
        raise Fault("unclear message: too long", told)
    given = list(pairs(argv))
    named = [*paths, *(value for option, value in given if option == "--out")]
    named += [f" of {re.split('[.]', Path(path).name)[0]}" for path in paths]
    if any(" ".join(path.split()) in said for path in named if path):
        return
    for option, value in given:
        forms = {value, repr(value), repr(value)[1:-1], value.strip(), _rounded(value)} - {""}
        is_shown = any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", said) for form in forms)
        if option in said and (is_shown or option in FLAGS or "expected one" in said):
            return
    # What is not given has a value of the command line's own.
    if any(option in said for option in {*TRAIN, *PREDICT} - {option for option, _ in given}):
        return
    raise Fault(f"unclear message: {_kind(said)}", told)


def _rounded(value: str) -> str:
    try:
        return f"{float(value):g}"
    except ValueError:
        return value


def pairs(argv: list[str]):
    """Options with their values."""
    for place, each in enumerate(argv):
        if each.startswith("--"):
            option, equals, value = each.partition("=")
            following = argv[place + 1] if place + 1 < len(argv) else ""
            yield option, value if equals else following


def _kind(said: str) -> str:
    """Without what differs from case to case."""
    return re.sub(r"'[^']*'|\S*[\d/.]\S*", "…", said)[:60]


# ---------------------------------------------------------------- what was made
def look_at_scores(out: str) -> None:
    for line in re.findall(r"^(?:accuracy|R²|RMSE) .*$", out, re.MULTILINE):
        if not np.isfinite(float(line.split()[1])):
            raise Fault("silent NaN in a score", line)


def look_at_model(path: str) -> None:
    gpumlp.load(path, device="cpu")  # which looks at its numbers
    scores = json.loads(Path(path).with_name(METRICS).read_text())
    for name, value in scores.items():
        if value is None or (isinstance(value, float) and not np.isfinite(value)):
            raise Fault("silent NaN in the model's score", f"{name} {value}")


def predicted(file: str | None, out: str) -> list[tuple[str, np.ndarray]]:
    """Names and columns, or arrays; `out` is what was printed."""
    if file is not None and file.endswith(".jsonl"):
        lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
        return [(name, np.array([line[name] for line in lines])) for name in lines[0]]
    if file is not None and file.endswith(".parquet"):
        table = importlib.import_module("pyarrow.parquet").read_table(file)
        return [(name, table[name].to_numpy()) for name in table.column_names]
    if file is not None and not file.endswith(".csv"):
        loaded = np.load(file)
        return [("", loaded)] if isinstance(loaded, np.ndarray) else list(loaded.items())
    text = out if file is None else Path(file).read_text()
    rows = list(csv.reader(io.StringIO(text)))
    if len({len(row) for row in rows}) != 1:
        raise Fault("lines of several lengths", text)
    names = rows.pop(0)
    return list(zip(names, np.array(rows).T, strict=True))


def look_at_predictions(argv, found: list[tuple[str, np.ndarray]], rows: int | None) -> None:
    """One for each of so many rows, where their number is known; finite, where they are numbers,
    but for the user's own columns, which may hold missing values."""
    kept = [value for option, value in itertools.pairwise(argv) if option == "--keep"]
    for place, (name, values) in enumerate(found):
        if (place and name == "classes") or (not place and name == "label") or name in kept:
            continue
        if rows is not None and len(values) != rows:
            raise Fault("not one prediction for each row", f"{shown(argv)}\n{len(values)}, {rows}")
        with contextlib.suppress(ValueError):  # labels
            if not np.isfinite(values.astype(float)).all():
                raise Fault("silent NaN in a prediction", shown(argv))
