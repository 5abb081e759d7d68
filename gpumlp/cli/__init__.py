"""The command line: `gpumlp train`, `gpumlp predict` and `gpumlp info`.

Each command is a module of this package with a function run(arguments) -> exit code; it is
imported when it is called, so that `gpumlp --help` answers at once.
"""

import argparse
import importlib
import io
import math
import os
import sys
import warnings

from gpumlp.cli.datasets import DATASETS
from gpumlp.cli.error import InputError, complain, in_options
from gpumlp.utils.version import __version__

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw", "lion")
PRECISIONS = ("float32", "tf32", "bf16")


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, or 2 where the user gave something wrong."""
    _prepare_output()
    name = ""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            arguments = _parser().parse_args(argv)
            command = importlib.import_module(f"gpumlp.cli.{arguments.command}")
            name = arguments.command
            code = command.run(arguments)
            sys.stdout.flush()
            return code
    except InputError as error:
        return _complain(str(error), 2)
    except MemoryError as error:
        return _complain(in_options(error, name), 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # The reader has gone, as in `gpumlp predict … | head`.
        _drop_output()
        return 1
    except OSError as error:
        # Files have names: what has none is what is printed to.
        if error.filename is None:
            _drop_output()
        return _complain(f"{error.filename or 'standard output'}: {error.strerror or error}", 2)
    except SystemExit as stop:  # argparse after --help and --version
        return int(stop.code or 0)


def _prepare_output() -> None:
    """What cannot be printed is no error: there may be nowhere to print, or no such letters."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Leaves nothing to be flushed when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(sentence: str, code: int) -> int:
    complain(sentence)
    return code


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    complain(f"warning: {message}")


class _Parser(argparse.ArgumentParser):
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gpumlp", description="Trains and applies multilayer perceptrons.")
    parser.add_argument("--version", action="version", version=f"gpumlp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_predict(commands)
    _add_info(commands)
    return parser


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="train a network and save it")
    train.set_defaults(lr=None, l2=None, out=None, drop=None)

    def option(name, text, **how):
        if "default" in how:
            text += " (default: %(default)s)"
        train.add_argument(name, help=text, **how)

    option(
        "data",
        f"{', '.join(DATASETS)}; or an .npz file that holds X (samples, features) and y: "
        "integers, booleans or strings to classify, floats for regression; or a table with named "
        "columns, .csv, .tsv or .parquet",
        type=_name,
        metavar="DATA",
    )
    option("--target", "of a table: the column to predict", type=_name, metavar="COLUMN")
    task = "of a table: what to predict (default: classes if the target is text, booleans or few "
    option("--task", task + "different whole numbers)", choices=("classification", "regression"))
    drop = "of a table: a column to leave out; may be repeated"
    option("--drop", drop, metavar="COLUMN", action="append")
    option("--hidden", "sizes of the hidden layers, or none", type=_sizes, default="256")
    option("--activation", "f of the hidden layers", default="relu")
    option("--epochs", "at most so many", type=_count, default=100)
    option("--patience", "epochs without progress before it stops", type=_count, default=20)
    option("--batch-size", "samples in a step", type=_count, default=64)
    option("--optimizer", "how the steps are made", choices=OPTIMIZERS, default="adam")
    option("--lr", "learning rate (default: one that suits the optimizer)", type=_positive)
    option("--dropout", "share of hidden units left out", type=_fraction, default=0.2)
    penalty = "weight of the L2 penalty; with adamw, its weight decay (default: 0; adamw: 0.01)"
    option("--l2", penalty, type=_not_negative)
    smoothing = "share of a label spread over all classes"
    option("--label-smoothing", smoothing, type=_fraction, default=0.1)
    option("--device", "auto, cpu, cuda or cuda:<number>", default="auto")
    option("--dtype", "of all numbers", choices=("float32", "float64"), default="float32")
    precision = "of the products on a GPU, in float32"
    option("--precision", precision, choices=PRECISIONS, default="float32")
    option("--seed", "of the split, the weights and the batches", type=_seed, default=0)
    out = "folder for the results (default: runs/<name of the data>)"
    option("--out", out, type=_name, metavar="DIR")


def _add_predict(commands) -> None:
    predict = commands.add_parser("predict", help="apply a saved network to new samples")
    saved = "what `gpumlp train` saved, or an estimator that was saved in Python"
    predict.add_argument("model", type=_name, metavar="MODEL", help=saved)
    samples = "an .npz file that holds X, an .npy file, or a table"
    predict.add_argument("file", type=_name, metavar="FILE", help=samples)
    written = "write .csv, .npy or .npz instead of text"
    predict.add_argument("--out", type=_name, metavar="FILE", help=written)
    predict.add_argument("--proba", action="store_true", help="also the probability of each class")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<number>")


def _add_info(commands) -> None:
    info = commands.add_parser("info", help="say what was found: Python, NumPy, CuPy, driver, GPUs")
    info.add_argument(
        "--check",
        nargs="?",
        const="auto",
        metavar="DEVICE",
        help="compare every operation with NumPy, on auto, cpu, cuda or cuda:<number>, and print "
        "a table for a bug report; the exit code is 1 if one is wrong",
    )


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError(f"expected a name, not {text!r}")
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
