"""Predictions as text and files: CSV, JSON lines, Parquet and NumPy's, a piece at a time."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.cli import run_folder
from gpumlp.cli.error import InputError, brief
from gpumlp.utils import atomic

SUFFIXES = (".csv", ".parquet", ".jsonl", ".npy", ".npz")
FORMS = {"value": "{:.7g}", "probability": "{:.6g}"}
KEPT = "keep "

Piece = dict[str, Any]
"""Further columns, with KEPT before their names; "label" or "value"; perhaps "probability"."""


def write(found: Iterator[Piece], out: Path, classes) -> None:
    """All pieces into a file, in one piece or not at all."""
    try:
        with atomic.writing(out.resolve()) as file:
            if out.suffix in (".npy", ".npz"):
                _write_arrays(found, file, out.suffix, classes)
            elif out.suffix == ".parquet":
                _write_parquet(found, file, classes)
            else:
                lines = (as_csv if out.suffix == ".csv" else as_json)(found, classes)
                for text in lines:
                    file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"{out} cannot be written ({run_folder.reason(error)})") from error


def _columns(piece: Piece, classes) -> dict[str, Any]:
    """The columns of a piece, by the names that they have in a table."""
    columns: dict[str, Any] = {}
    for name, values in piece.items():
        if name == "probability":
            columns |= {str(each): values[:, i] for i, each in enumerate(classes)}
        elif name.startswith(KEPT):
            columns[name.removeprefix(KEPT)] = values
        elif values.ndim == 1 or values.shape[1] == 1:
            columns[name] = values.reshape(-1)
        else:
            columns |= {f"y{i}": column for i, column in enumerate(values.T)}
    return columns


def as_csv(found: Iterator[Piece], classes) -> Iterator[str]:
    """The lines of each piece, the first time with a header."""
    for number, piece in enumerate(found):
        names: list[str] = []
        columns: list[Any] = []
        for name, values in piece.items():
            made = _columns({name: values}, classes)
            names += made
            form = FORMS.get(name, "{}")
            for each in made.values():
                columns.append(map(form.format, map(_shown, each)))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if number == 0:
            writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
        yield text.getvalue()


def as_json(found: Iterator[Piece], classes) -> Iterator[str]:
    for piece in found:
        columns = _columns(piece, classes)
        rows = zip(*(each.tolist() for each in columns.values()), strict=True)
        lines = (
            json.dumps(dict(zip(columns, map(_plain, row), strict=True)), ensure_ascii=False)
            for row in rows
        )
        yield "".join(f"{line}\n" for line in lines)


def _shown(value: Any) -> Any:
    return "" if value is None or value != value else value


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if value is None or value != value:
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)


def _write_parquet(found: Iterator[Piece], file, classes) -> None:
    try:
        pyarrow, parquet = (importlib.import_module(f"pyarrow{end}") for end in ("", ".parquet"))
    except ImportError as error:
        raise InputError(f'Parquet needs pyarrow: pip install "gpumlp[table]" ({error})') from error
    with contextlib.ExitStack() as stack:
        writer = None
        for piece in found:
            columns = _columns(piece, classes)
            try:
                made = pyarrow.table({name: pyarrow.array(each) for name, each in columns.items()})
                made = made if writer is None else made.cast(writer.schema)
            except pyarrow.ArrowException as error:
                why = f"a column's values are of several types: {brief(error)}"
                raise InputError(f"--out of Parquet cannot be written ({why})") from error
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(file, made.schema))
            writer.write_table(made)


def _write_arrays(found: Iterator[Piece], file, suffix: str, classes) -> None:
    pieces = list(found)
    arrays: dict[str, Any] = {
        name.removeprefix(KEPT): np.concatenate([np.asarray(each[name]) for each in pieces])
        for name in pieces[0]
    }
    arrays = {
        name: np.array(each.tolist()) if each.dtype == object else each
        for name, each in arrays.items()
    }
    if suffix == ".npy":
        np.save(file, arrays["label" if "label" in arrays else "value"])
    else:
        np.savez(file, **arrays, **({"classes": classes} if "probability" in arrays else {}))
