"""`gpumlp predict`: applies a saved model to new samples, in pieces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpumlp.cli import cells, data, run_folder, saved_model, table
from gpumlp.cli.choose_device import choose
from gpumlp.cli.error import InputError, complain
from gpumlp.cli.predictions import KEPT, SUFFIXES, Piece, as_csv, write
from gpumlp.cli.table import Reading

PIECE = 1 << 22  # cells that are read at once, if those are ROWS rows
ROWS = 1024


def run(arguments) -> int:
    out = _checked_out(arguments.out, arguments.proba)
    how = Reading.of(arguments)
    model = saved_model.load(arguments.model, choose(arguments.device)[0])
    if arguments.proba and model.classes is None:
        raise InputError("--proba is for classification; this model predicts values")
    target = saved_model.config_of(arguments.model).get("target")
    found = _predictions(model, arguments, how, target)
    if out is None:
        for text in as_csv(found, model.classes):
            sys.stdout.write(text)
    else:
        write(found, out, model.classes)
    return 0


def _predictions(model, arguments, how: Reading, target: str | None) -> Iterator[Piece]:
    """Of one piece of the file after the other."""
    path, keep = arguments.file, arguments.keep or []
    if not table.is_table(path) and (model.takes_arrays or Path(path).suffix in table.ARRAYS):
        if not model.takes_arrays:
            raise InputError(f"{path} is no table, but the model was trained on one")
        if keep:
            raise InputError(f"--keep is for tables, and {path} is none")
        how.refuse_given(path, "none")
        yield _piece(model, data.features_of(path, model.features), path, arguments.proba)
        return
    if not model.takes_tables:
        raise InputError(f"{path} is a table, but the model was trained on arrays (.npz)")
    names = table.columns_of(path, how)
    kinds = model.kinds(names, path)
    data.check_columns(path, [*kinds], names)
    for name in keep:
        if name not in names:
            raise InputError(data.no_column(path, name, names))
    if target in names and target not in kinds and target not in keep:
        complain(f"note: column {target} of {path} is what the model predicts: it is not looked at")
    conformer, start = cells.Conformer(kinds, path), 0
    texts = [name for name, kind in kinds.items() if kind == cells.TEXT]
    rows = max(ROWS, PIECE // len(names))
    for frame in table.pieces(path, how, [*texts, *keep], [*kinds, *keep], rows):
        found = _piece(model, conformer.frame(frame, start), path, arguments.proba)
        start += len(frame)
        yield {f"{KEPT}{name}": frame[name] for name in keep} | found
    conformer.say()
    model.say(path)


def _piece(model, x: Any, path: str, proba: bool) -> Piece:
    predicted, shares = model.outputs(x, path)
    if model.classes is None:
        return {"value": predicted}
    return {"label": predicted} | ({"probability": shares} if proba else {})


def _checked_out(out: str | None, proba: bool) -> Path | None:
    """Refuse an output that could not be written, before the work."""
    if out is None:
        return None
    path = Path(out)
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {out} must end in {', '.join(SUFFIXES)}")
    if path.suffix == ".npy" and proba:
        raise InputError("an .npy file holds one array; with --proba write .npz or .csv")
    return run_folder.file(path)
