"""The options of the command line with random values, for tests/fuzz/commands.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NO_NUMBER = ("", "x", "nan", "inf", "-inf", "-1", "1e999", "1,5", "--")


class Option(NamedTuple):
    """good, odd, bad: values that are taken, may be, and must be refused by name."""

    good: Sequence[str]
    odd: Sequence[str] = ()
    bad: Sequence[str] = ()


NO_COUNT = (*NO_NUMBER, "0", "1.5", "1e3", "9" * 5000)
NO_SHARE = (*NO_NUMBER, "1", "1.5", "1e300")
NO_DEVICE = ("", "gpu", "CPU", "cuda:999", "cuda:-1", "cuda:x", "cuda:" + "9" * 30)
TRAIN = {
    "--hidden": Option(
        ("4", "3,2", "1"),
        ("none", "1_0", "+3", "٣", " 5 "),
        (
            *(text for text in NO_COUNT if text != "1,5"),
            ",",
            "4,",
            "4;5",
            "none,4",
            "2000000000",
            "4,1000000000,4",
            "9" * 24,
        ),
    ),
    "--activation": Option(
        ("tanh", "gelu", "prelu", "identity"),
        ("exp", "sine"),
        ("", "rleu", "softmax", "RELU", "[relu]"),
    ),
    "--epochs": Option(("1", "3"), (), NO_COUNT),
    "--patience": Option(("1", "5"), ("9" * 30,), NO_COUNT),
    "--batch-size": Option(("1", "7", "64"), ("9" * 30,), NO_COUNT),
    # The others are for arrays.
    "--optimizer": Option(
        ("adamw",), ("sgd", "momentum", "rmsprop", "adam", "lion"), ("", "lbfgs", "Adam", "none")
    ),
    "--lr": Option(("0.01", "1e-4"), ("1e-320", "1e38", "1e300", "1e4", "5"), (*NO_NUMBER, "0")),
    "--dropout": Option(("0", "0.5"), ("1e-320", "0.9999999999", "0.99"), NO_SHARE),
    "--l2": Option(("0", "0.1"), ("1e-320", "1e38", "1e300", "50"), NO_NUMBER),
    # For classes.
    "--label-smoothing": Option((), ("0", "0.3", "1e-320", "0.9999999999"), NO_SHARE),
    "--class-weight": Option((), ("balanced",), ("", "equal")),
    "--cv": Option((), ("2", "3"), (*NO_COUNT, "1")),
    "--sep": Option((), (",", "tab"), ("", ",,")),
    "--decimal": Option((), (".", ","), ("", ":")),
    "--encoding": Option((), ("utf-8", "latin-1"), ("utf-9", "no such")),
    "--na": Option((), ("ant", "-,none")),
    "--device": Option(("cpu",), (), NO_DEVICE),
    "--dtype": Option(("float32", "float64"), (), ("", "float16", "double")),
    "--precision": Option(("float32",), ("tf32", "bf16"), ("", "float64", "fp8")),
    "--seed": Option(("0", "9223372036854775807"), ("-0",), (*NO_NUMBER, "9223372036854775808")),
    "--task": Option((), ("classification", "regression"), ("", "class")),
    "--drop": Option((), ("column 0", "column 1"), ("no such column", "")),
    "--target": Option((), ("column 0",), ("no such column", "")),
    "--out": Option(
        ("out", "a/b", "."), ("link", "locked", "kept"), ("", "old.txt", "old.txt/in", "n" * 300)
    ),
    "--no-such": Option((), (), ("1",)),
}
PREDICT = {
    "--out": Option(
        ("out.csv", "out.npz", "kept/out.csv", "out.jsonl"),
        ("out.npy", "locked/out.csv", "out.parquet"),
        ("", "out.txt", "out", "none/out.csv", "folder.csv", "old.txt/out.csv", "n" * 300 + ".csv"),
    ),
    "--device": Option(("cpu",), (), NO_DEVICE),
    "--keep": Option((), ("column 0", "no such column")),
    "--no-such": Option((), (), ("1",)),
}
FLAGS = ("--proba",)  # options without a value
# Lines without any file, and whether they are valid.
OTHERS: tuple[tuple[list[str], bool], ...] = (
    (["--version"], True),
    (["--help"], True),
    (["train", "--help"], True),
    (["predict", "-h"], True),
    (["info"], True),
    ([], False),
    (["trian"], False),
    (["train"], False),
    (["predict"], False),
    (["predict", "model"], False),
    (["info", "more"], False),
    (["info", "--check", ""], False),
    (["info", "--check", "gpu"], False),
    (["info", "--check", "cuda:999"], False),
)


class Line(NamedTuple):
    """argv, and whether there are odd or bad values in it;  wrong: those bad ones by option."""

    argv: list[str]
    odd: bool
    wrong: dict[str, str]


def line(random, known: dict[str, Option], must: Sequence[str], hostile: bool) -> Line:
    """Some options, each at most once; of hostile ones one or two are odd or bad."""
    argv: list[str] = []
    wrong: dict[str, str] = {}
    odd = False
    usual = [name for name in known if known[name].good]
    names = [name for name in usual if name in must or random.integers(4) == 0]
    spoilt = set(random.choice(list(known), random.integers(1, 3))) if hostile else set()
    for name in random.permutation(sorted({*names, *spoilt})).tolist():
        option = known[name]
        values = (*option.odd, *option.bad) if name in spoilt else option.good
        value = values[random.integers(len(values))]
        odd |= value in option.odd
        if value in option.bad and value not in option.good:
            wrong[name] = value
        argv += [f"{name}={value}"] if random.integers(2) else [name, value]
    return Line(argv, odd, wrong)
