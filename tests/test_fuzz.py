"""The fuzzers: that they see what is wrong, and a few of their cases; `make fuzz` runs more."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import gpumlp
from tests.fuzz import __main__, calls, damage, faulty, files, running, verdicts

FAULTY = "tests.fuzz.faulty"


@pytest.fixture(scope="module")
def found():
    return running.collect(FAULTY, seed=3, count=40)


def test_every_kind_of_finding_is_seen(found):
    """A case that kills its process, or never ends, costs only itself."""
    assert [outcome.number for outcome in found] == list(range(40))
    kinds = [list(faulty.KINDS)[running.random_of(3, n).integers(8)] for n in range(40)]
    assert set(kinds) == set(faulty.KINDS)
    for outcome, kind in zip(found, kinds, strict=True):
        assert outcome.verdict.startswith(kind)
        assert outcome.is_finding == (kind not in ("accepted", "refused: ValueError"))


def test_the_summary_says_how_to_see_each_again(found):
    told = __main__.summary("faulty", 3, found)
    for verdict in {outcome.verdict for outcome in found}:
        same = [outcome.number for outcome in found if outcome.verdict == verdict]
        line = f"{len(same):8d}  {verdict}\n"
        assert line in told + "\n"
        again = f"{'':10}--part faulty --seed 3 --case {same[0]}\n"
        assert (line + again in told) == found[same[0]].is_finding
    assert "in the third place" in told and "Segmentation fault" in told
    assert "tests/fuzz/faulty.py" in told  # where


def test_the_exit_code(found, monkeypatch, capsys):
    arguments = ["--part", "files", "--seed", "3", "--minutes", "0"]
    good = [outcome for outcome in found if not outcome.is_finding]
    for outcomes, code, last in ((good, 0, "nothing found"), (found, 1, "findings")):
        monkeypatch.setattr(running, "collect", lambda *given, found=outcomes: found)
        assert __main__.main(arguments) == code
        assert capsys.readouterr().out.rstrip().endswith(last)


def test_a_part_that_does_not_begin(tmp_path, monkeypatch):
    (tmp_path / "not_begun.py").write_text("LIMIT = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="not_begun does not begin"):
        running.collect("not_begun", seed=0, count=1)


# ---------------------------------------------------------------- files
@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return files.prepare(tmp_path_factory.mktemp("files"))


def test_files_that_are_not_damaged_are_accepted(shared):
    """Written anew by the fuzzer's own writer."""
    for seed in shared.seeds:
        path = shared.folder.parent / "same.safetensors"
        path.write_bytes(damage.to_bytes(seed.content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fits that are short, callbacks that are left out
            resumes = seed.path.name.startswith("checkpoint")
            assert files.look(path, resumes, trains=True) == "accepted"


def test_weights_that_are_nan_are_seen(shared, monkeypatch):
    """Where nothing refuses them."""
    from gpumlp.io import file_arrays

    monkeypatch.setattr(file_arrays, "wrong_numbers", lambda arrays: None)
    seed = next(seed for seed in shared.seeds if seed.path.name == "network plain")
    content = damage.Content(dict(seed.content.arrays), seed.content.about, {})
    content.arrays["b.1"] = np.full_like(content.arrays["b.1"], np.nan)
    path = shared.folder.parent / "nan.safetensors"
    path.write_bytes(damage.to_bytes(content))
    with pytest.raises(files.Fault, match=r"5 of \d+ numbers") as raised:
        files.look(path, resumes=False, trains=False)
    assert raised.value.kind == "silent NaN in theta"


def test_some_damaged_files():
    """`make fuzz` makes other ones."""
    found = running.collect("tests.fuzz.files", seed=1, count=800)
    findings = [outcome for outcome in found if outcome.is_finding]
    assert not findings, __main__.summary("files", 1, findings)
    assert {"accepted", "refused: FileError"} == {outcome.verdict for outcome in found}


# ---------------------------------------------------------------- calls
FAULTS = {
    "a refusal of right arguments": calls.Call(
        lambda lr: gpumlp.Adam(lr).lr, {"lr": lambda random: None}
    ),
    "silent NaN": calls.Call(lambda x: np.full(3, np.nan), {"x": lambda random: 0.5}),
    "foreign ValueError from test_fuzz.py": calls.Call(lambda x: int("a"), {"x": lambda random: 0}),
    "a message without the argument": calls.Call(
        lambda rate: gpumlp.Adam(lr=-1), {"rate": lambda random: 0.1}
    ),
    "a message without value or shape": calls.Call(
        lambda lr: gpumlp.Adam(lr=-1.25), {"lr": lambda random: 0.1}
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_faulty_call_is_seen(kind):
    found = set()
    for number in range(60):
        try:
            calls.one(running.random_of(0, number), {"it": FAULTS[kind]})
        except calls.Fault as fault:
            found.add(fault.kind)
    assert kind in found


def test_every_call_is_right_by_itself(tmp_path, monkeypatch):
    """Nothing is replaced, and all is accepted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calls.hostile, "value", lambda random, right: right)
    shared = calls.prepare(tmp_path)
    for name, call in shared.items():
        verdicts = {calls.one(running.random_of(1, n), {name: call}) for n in range(5)}
        assert verdicts == {"accepted"}, name


def test_some_calls():
    """`make fuzz` makes other ones."""
    found = running.collect("tests.fuzz.calls", seed=1, count=600)
    findings = [outcome for outcome in found if outcome.is_finding]
    assert not findings, __main__.summary("calls", 1, findings)
    verdicts = {outcome.verdict for outcome in found}
    assert {"accepted", "refused: ParameterError", "refused: ValueError"} <= verdicts


# ---------------------------------------------------------------- commands
def says(*sentences, code=2):
    """A command line that says these sentences."""

    def main(argv):
        for sentence in sentences:
            print(f"gpumlp: {sentence}", file=sys.stderr)
        return code

    return main


def leaves(*sentences, code):
    def main(argv):
        Path(".left.tmp").touch()
        return says(*sentences, code=code)(argv)

    return main


CLEAR = "--lr: expected a number, not 'x'"
WRONG = {
    "accepted what is wrong: --lr": says(code=0),
    "a complaint, and exit code 0": says(CLEAR, code=0),
    "exit code 1": says(CLEAR, code=1),
    "not one sentence": says(CLEAR, CLEAR),
    "unclear message: expected a number": says("expected a number"),
    "unclear message: --lr: expected a number": says("--lr: expected a number"),
    "a warning: warning: overflow encountered": says("warning: overflow encountered", CLEAR),
    "a traceback": says("Traceback (most recent call last)", CLEAR),
    "files were left, lost or changed": leaves(CLEAR, code=2),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_command_line_does_wrong_is_seen(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdicts, "main", WRONG[kind])
    with pytest.raises(verdicts.Fault) as raised:
        verdicts.of(
            ["train", "iris", "--lr", "x"], verdicts.Expected([], {"--lr": "x"}, False, False)
        )
    assert raised.value.kind == kind


def test_what_is_refused_though_it_is_valid_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for main, kind in ((says("iris: no"), "refused what is valid"), (leaves(code=0), "files were")):
        monkeypatch.setattr(verdicts, "main", main)
        with pytest.raises(verdicts.Fault) as raised:
            ran = verdicts.of(["train", "iris"], verdicts.Expected(["iris"], {}, False, False))[1]
            verdicts.only(["train", "iris"], ran, set())
        assert raised.value.kind.startswith(kind)


@pytest.mark.parametrize(
    "text", ["value\nnan\n1\n", "label,a,b\nx,0.5,inf\n", "y0,y1\n1,2\n3,nan\n"]
)
def test_predictions_that_are_nan_are_seen(text):
    with pytest.raises(verdicts.Fault, match="predict"):
        verdicts.look_at_predictions(["predict"], verdicts.predicted(None, text), None)
    good = text.replace("nan", "0").replace("inf", "0.5")
    verdicts.look_at_predictions(["predict"], verdicts.predicted(None, good), None)
    with pytest.raises(verdicts.Fault, match="7"):
        verdicts.look_at_predictions(["predict"], verdicts.predicted(None, good), 7)


def test_some_commands():
    """`make fuzz` tries other ones."""
    found = running.collect("tests.fuzz.commands", seed=1, count=100)
    findings = [outcome for outcome in found if outcome.is_finding]
    assert not findings, __main__.summary("commands", 1, findings)
    assert {"accepted", "refused: InputError"} == {outcome.verdict for outcome in found}
