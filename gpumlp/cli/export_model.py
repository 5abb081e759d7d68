"""`gpumlp export`: a saved model as an ONNX file, its preparation included."""

from __future__ import annotations

from pathlib import Path

from gpumlp.cli import run_folder, saved_model
from gpumlp.cli.error import InputError


def run(arguments) -> int:
    out = Path(arguments.file)
    if out.suffix != ".onnx":
        raise InputError(f"{out} must end in .onnx")
    run_folder.file(out)
    model = saved_model.load(arguments.model, "cpu")
    try:
        model.export(out.resolve())
    except ImportError as error:
        raise InputError(f"{out} cannot be written: {error}") from error
    except OSError as error:
        raise InputError(f"{out} cannot be written ({run_folder.reason(error)})") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{arguments.model} cannot be exported: {error}") from error
    print(f"ONNX      {out}")
    return 0
