"""The command line: `gpumlp train`, `evaluate`, `predict`, `export` and `info`.

Each command is a module of this package with a function run(arguments) -> exit code; it is
imported when it is called, so that `gpumlp --help` answers at once.
"""

import importlib
import io
import os
import sys
import warnings

from gpumlp.cli.error import InputError, complain, in_options
from gpumlp.cli.options import parser

# Modules of the commands whose names are taken.
MODULES = {"evaluate": "evaluate_model", "export": "export_model"}


def main(argv: list[str] | None = None) -> int:
    """Run one command and returns its exit code: 0, or 2 where the user gave something wrong."""
    _prepare_output()
    name = ""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            arguments = parser().parse_args(argv)
            name = arguments.command
            command = importlib.import_module(f"gpumlp.cli.{MODULES.get(name, name)}")
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
    """Leave nothing to be flushed when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(sentence: str, code: int) -> int:
    complain(sentence)
    return code


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    complain(f"warning: {message}")
