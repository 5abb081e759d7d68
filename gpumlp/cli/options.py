"""What can be said on the command line: commands, options, and the values that they take."""

from __future__ import annotations

import argparse
import math
import sys

from gpumlp.cli.error import InputError
from gpumlp.utils.version import __version__

DATASETS = ("digits", "breast_cancer", "wine", "iris", "diabetes")  # scikit-learn's, by name
OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw", "lion")
DEVICE = "auto"
# Of `train`: as None says that an option was not given, they are not argparse's.
DEFAULTS = {"device": DEVICE, "dtype": "float32", "precision": "float32", "seed": 0}
PRECISIONS = ("float32", "tf32", "bf16")
TABLES = ".csv, .tsv, .parquet, .feather, .xlsx, .jsonl, also .gz"


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence instead of its whole usage."""

    def parse_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        for each in args:
            option, _, value = each.partition("=")
            if option.startswith("--") and value == "--":  # which Python before 3.13 makes a list
                self.error(f"argument {option}: expected one argument, not {value!r}")
        return super().parse_args(args, namespace)

    def error(self, message):
        raise InputError(f"{message} ({self.prog} --help lists what is valid)")


class _Once(argparse.Action):
    """An option of which a second one would be lost."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string}: there can be one only, not {values!r} too")
        setattr(namespace, self.dest, values)


def parser() -> Parser:
    made = Parser(prog="gpumlp", description="Trains and applies multilayer perceptrons.")
    made.add_argument("--version", action="version", version=f"gpumlp {__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a model, score it and save it"))
    _add_evaluate(commands.add_parser("evaluate", help="score a saved model on other samples"))
    _add_predict(commands.add_parser("predict", help="apply a saved model to new samples"))
    _add_export(commands.add_parser("export", help="write a saved model as an ONNX file"))
    info = commands.add_parser("info", help="say what was found: Python, NumPy, CuPy, driver, GPUs")
    check = "compare every operation with NumPy, on auto, cpu, cuda or cuda:<number>, and print a "
    check += "table for a bug report; the exit code is 1 if one is wrong"
    info.add_argument("--check", nargs="?", const="auto", metavar="DEVICE", help=check)
    return made


def _add_train(train) -> None:
    option = train.add_argument
    data = f"{', '.join(DATASETS)}; or an .npz file that holds X (samples, features) and y: "
    data += "integers, booleans or strings to classify, floats for regression; or a table with "
    data += f"named columns ({TABLES}); not needed with --resume"
    option("data", metavar="DATA", type=name, nargs="?", help=data)
    _add_reading(train)
    target = "of a table: the column to predict"
    option("--target", type=name, metavar="COLUMN", action=_Once, help=target)
    task = "of a table: what to predict (default: classes if the target is text, booleans or few "
    task += "different whole numbers)"
    option("--task", choices=("classification", "regression"), help=task)
    drop = "of a table: a column to leave out; may be repeated"
    option("--drop", metavar="COLUMN", action="append", type=str.strip, help=drop)
    missing = "of a table: leave rows out whose target is missing"
    option("--drop-missing-target", action="store_true", help=missing)
    test = "samples to score on, instead of a fifth that is held out"
    option("--test", type=name, metavar="FILE", help=test)
    option("--valid", type=name, metavar="FILE", help="samples by which the best epoch is chosen")
    cv = "of a table: score by K-fold cross-validation; the model is trained on all rows"
    option("--cv", type=_folds, metavar="K", help=cv)
    weight = "of classes: balanced gives each the same weight in the loss"
    option("--class-weight", choices=("balanced",), help=weight)
    option("--hidden", type=_sizes, help="sizes of the hidden layers, or none" + _default(256))
    option("--activation", help="f of the hidden layers" + _default("relu", "selu or mish"))
    option("--epochs", type=_count, help="at most so many" + _default(100))
    patience = "epochs without progress before it stops" + _default(20, "as many as --epochs")
    option("--patience", type=_count, help=patience)
    option("--batch-size", type=_count, help="samples in a step" + _default(64))
    optimizer = "how the steps are made" + _default("adam", "adamw, and no other")
    option("--optimizer", choices=OPTIMIZERS, help=optimizer)
    lr = "learning rate" + _default("one that suits the optimizer", "0.0025")
    option("--lr", type=_positive, help=lr)
    option("--dropout", type=_fraction, help="share of hidden units left out" + _default(0.2, 0.15))
    penalty = "weight of the L2 penalty; with adamw, its weight decay (default: 0; adamw: 0.01; of "
    option("--l2", type=_not_negative, help=f"{penalty}a table: 0.3)")
    smoothing = "of classes: share of a label spread over all" + _default(0.1, 0.1)
    option("--label-smoothing", type=_fraction, help=smoothing)
    _add_device(train, None)
    dtype = f"of all numbers (default: {DEFAULTS['dtype']})"
    option("--dtype", choices=("float32", "float64"), help=dtype)
    precision = "of the products on a GPU, in float32 (default: float32; of a table no other)"
    option("--precision", choices=PRECISIONS, help=precision)
    seed = f"of the split, the weights and the batches (default: {DEFAULTS['seed']})"
    option("--seed", type=_seed, help=seed)
    out = "folder for the results (default: a new one, runs/<name of the data>)"
    option("--out", type=name, metavar="DIR", help=out)
    option("--overwrite", action="store_true", help="replace the run that is in --out")
    resume = "go on with the run in this folder that was cut short, by Ctrl-C or anything else, to "
    resume += "what it would have come to; with its own options, and none but those"
    option("--resume", type=name, metavar="DIR", help=resume)


def _add_evaluate(evaluate) -> None:
    _add_model(evaluate)
    option = evaluate.add_argument
    option("file", type=name, metavar="FILE", help="samples with their target, as for train")
    target = "of a table: the column that is predicted (default: that of the run)"
    option("--target", type=name, metavar="COLUMN", help=target)
    missing = "leave rows out whose target is missing"
    option("--drop-missing-target", action="store_true", help=missing)
    option("--out", type=name, metavar="FILE", help="write the scores as JSON, too")
    _add_reading(evaluate)
    _add_device(evaluate)


def _add_predict(predict) -> None:
    _add_model(predict)
    option = predict.add_argument
    samples = f"an .npz file that holds X, an .npy file, or a table ({TABLES})"
    option("file", type=name, metavar="FILE", help=samples)
    written = "write .csv, .parquet, .jsonl, .npy or .npz instead of text"
    option("--out", type=name, metavar="FILE", help=written)
    option("--proba", action="store_true", help="also the probability of each class")
    keep = "of a table: a column to write beside the predictions; may be repeated"
    option("--keep", metavar="COLUMN", action="append", type=str.strip, help=keep)
    _add_reading(predict)
    _add_device(predict)


def _add_export(export) -> None:
    _add_model(export)
    export.add_argument("file", type=name, metavar="FILE", help="the .onnx file to write")


def _add_model(command) -> None:
    saved = "a run's folder, the model file in it, or an estimator that was saved in Python"
    command.add_argument("model", type=name, metavar="MODEL", help=saved)


def _add_device(command, default: str | None = DEVICE) -> None:
    device = f"auto, cpu, cuda or cuda:<number> (default: {DEVICE})"
    command.add_argument("--device", default=default, help=device)


def _add_reading(command) -> None:
    option = command.add_argument_group("how a table of text is read").add_argument
    option("--sep", type=_separator, help="between columns (default: recognised)", metavar="TEXT")
    decimal = "the decimal mark (default: recognised)"
    option("--decimal", choices=(".", ","), help=decimal)
    option("--encoding", type=_encoding, metavar="NAME", help="(default: recognised)")
    na = "further texts that are no value, with commas between them (besides NA, NaN, null, ?)"
    option("--na", type=_texts, metavar="VALUES", help=na)
    header = "the first line is no header: columns are named 1, 2, 3, ..."
    option("--no-header", action="store_true", help=header)


def _default(arrays, tables="by the rows") -> str:
    return f" (default: {arrays}; of a table: {tables})"


# ---------------------------------------------------------------- values
def name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a name, not {text!r}")
    return text.strip()


def _texts(text: str) -> list[str]:
    return [each.strip() for each in text.split(",")]


def _separator(text: str) -> str:
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"expected one character, or tab, not {text!r}")
    return text


def _encoding(text: str) -> str:
    try:
        "".encode(text)
    except (LookupError, ValueError):
        expected = "the name of an encoding, such as utf-8 or cp1252"
        raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}") from None
    return text


def _sizes(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(map(_count, text.split(",")))
    except argparse.ArgumentTypeError:
        expected = "none, or whole numbers with commas between them, each 1 or more"
        raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}") from None


def _count(text: str) -> int:
    return _number(text, int, "a whole number, 1 or more", lambda value: value >= 1)


def _folds(text: str) -> int:
    return _number(text, int, "a whole number, 2 or more", lambda value: value >= 2)


def _seed(text: str) -> int:
    expected = "a whole number from 0 to 2**63 - 1"
    return _number(text, int, expected, lambda value: 0 <= value < 2**63)


def _positive(text: str) -> float:
    return _number(text, float, "a number above 0", lambda value: 0 < value < math.inf)


def _not_negative(text: str) -> float:
    return _number(text, float, "a number, 0 or more", lambda value: 0 <= value < math.inf)


def _fraction(text: str) -> float:
    return _number(text, float, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def _number(text, kind, expected, valid):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not valid(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, not {text!r}")
    return value
