"""`gpumlp evaluate`: scores a saved model on samples whose target is known."""

from __future__ import annotations

from pathlib import Path

from gpumlp.cli import data, run_folder, saved_model, scores, table
from gpumlp.cli.choose_device import choose
from gpumlp.cli.error import InputError
from gpumlp.cli.options import DATASETS
from gpumlp.cli.table import Reading


def run(arguments) -> int:
    path, how = arguments.file, Reading.of(arguments)
    out = run_folder.file(Path(arguments.out)) if arguments.out else None
    model = saved_model.load(arguments.model, choose(arguments.device)[0])
    target = arguments.target or saved_model.config_of(arguments.model).get("target")
    arrays = path in DATASETS or Path(path).suffix in table.ARRAYS
    if arrays and model.takes_arrays:
        if arguments.target or arguments.drop_missing_target:
            raise InputError(f"--target and --drop-missing-target are for tables, not for {path}")
        how.refuse_given(path, "none")
        samples = data.arrays_for(path, model.features, model.classes)
    elif not model.takes_tables:
        raise InputError(f"{path} is a table, but the model was trained on arrays (.npz)")
    elif target is None:
        raise InputError(f"--target says which column of {path} the model predicts")
    else:
        drop, kinds = arguments.drop_missing_target, {}
        if not arrays:
            columns = [each for each in table.columns_of(path, how) if each != target]
            kinds = model.kinds(columns, path)
        samples = data.more_of_table(path, kinds, target, model.classes, how, drop)
    predicted, probability = model.outputs(samples.x, path)
    model.say(path)
    # Of the training samples, where they are known.
    baseline = saved_model.config_of(arguments.model).get("baseline")
    if baseline is None:
        baseline = scores.baseline_of(samples.y, model.classes)
    found = scores.score(samples.y, predicted, probability, model.classes, baseline)
    print(f"samples   {len(samples)}")
    for line in scores.lines(found, f"on {path}"):
        print(line)
    if out is not None:
        run_folder.write(out, run_folder.as_json(found))
    return 0
