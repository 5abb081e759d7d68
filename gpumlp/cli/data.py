"""What the command line trains on: scikit-learn's small data sets, .npz files and tables."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.cli import cells, table
from gpumlp.cli.error import InputError, brief, complain
from gpumlp.cli.options import DATASETS
from gpumlp.cli.table import Reading
from gpumlp.cli.target import check_classes, check_values, target_of

FEWEST_SAMPLES = 10


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples with their classes or values.

    x (samples, features) float64, or a frame (pandas.DataFrame); y (samples,) labels of `classes`,
    or float64 values (samples,), of arrays (samples, targets), with `classes` None. rows: the
    samples' rows in the file, from 1. one_scale: the features are of one kind and unit, as the
    pixels of an image are. target: the name of y, if it has one.
    """

    name: str
    x: Any
    y: np.ndarray
    classes: np.ndarray | None
    rows: np.ndarray
    one_scale: bool = False
    target: str | None = None

    def __len__(self) -> int:
        return len(self.y)

    def __str__(self) -> str:
        if self.classes is not None:
            aim = f"{len(self.classes)} classes" + (f" of {self.target}" if self.target else "")
        elif self.target:
            aim = f"{self.target} to predict"
        else:
            targets = self.y.shape[1]
            aim = f"{targets} value{'s' * (targets > 1)} to predict"
        return f"{self.name}: {len(self)} samples, {self.x.shape[1]} features, {aim}"

    @property
    def of_table(self) -> bool:
        return not isinstance(self.x, np.ndarray)

    @property
    def kinds(self) -> dict[str, str]:
        """Of the columns of a table."""
        return {name: cells.kind_of(dtype) for name, dtype in self.x.dtypes.items()}

    def take(self, rows: np.ndarray) -> Samples:
        x = self.x.iloc[rows] if self.of_table else self.x[rows]
        return dataclasses.replace(self, x=x, y=self.y[rows], rows=self.rows[rows])

    def split(self, share: float, rng: np.random.Generator) -> tuple[Samples, Samples]:
        """Set a random share aside, the same share of every class: (rest, aside). Every class
        keeps at least one sample in the rest."""
        order = rng.permutation(len(self))
        aside = max(1, round(share * len(order)))
        if self.classes is not None:
            order = order[_ranks(self.y[order]).argsort(kind="stable")]
        return self.take(order[aside:]), self.take(order[:aside])


def _ranks(labels: np.ndarray) -> np.ndarray:
    """For each sample, how far through its own class it stands, in [0, 1).

    Sorted by rank, any prefix holds nearly its share of every class.
    """
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        ranks[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return ranks


def load(arguments) -> Samples:
    """What DATA names: a data set, or an .npz file or a table by its path."""
    path, how = arguments.data, Reading.of(arguments)
    arrays = path in DATASETS or Path(path).suffix in table.ARRAYS
    if table.is_table(path) or (arguments.target is not None and not arrays):
        return _from_table(arguments, how)
    for option in ("--target", "--task", "--drop", "--drop-missing-target", "--cv"):
        if getattr(arguments, option[2:].replace("-", "_")):
            raise InputError(f"{option} is for tables (.csv, .parquet, ...), and {path} is none")
    how.refuse_given(path, "none")
    if path in DATASETS:
        return _bundled(path)
    if Path(path).suffix != ".npz" and not Path(path).exists():
        raise InputError(f"{path!r} is neither a file nor one of {', '.join(DATASETS)}")
    return _from_file(path)


def load_more(path: str, like: Samples, how: Reading, drop_missing: bool = False) -> Samples:
    """Further samples, of the columns or features and the classes of others."""
    if like.of_table:
        more = more_of_table(path, like.kinds, like.target, like.classes, how, drop_missing)
    else:
        how.refuse_given(path, "none")
        more = arrays_for(path, like.x.shape[1], like.classes)
    return dataclasses.replace(more, name=like.name, classes=like.classes)


def arrays_for(path: str, features: int, classes: np.ndarray | None) -> Samples:
    """X and y for a model of so many features, and of these classes or None."""
    more = _bundled(path) if path in DATASETS else _from_file(path, check=False)
    if more.x.shape[1] != features:
        raise InputError(f"{path} has {more.x.shape[1]} features; the model takes {features}")
    if (more.classes is None) != (classes is None):
        held = "classes, not numbers" if classes is None else "numbers, not classes"
        raise InputError(f"y in {path} holds {held}, as the model predicts them")
    if classes is not None:
        _check_known(more.y, classes, more.rows, f"y in {path}")
    return more


def more_of_table(path, kinds, target, classes, how: Reading, drop_missing: bool) -> Samples:
    """A table with its target for a model of columns {name: kind} and of these classes, or None."""
    if Path(path).suffix in table.ARRAYS or path in DATASETS:
        raise InputError(f"{path} is no table, but the model was trained on one")
    texts = [name for name, kind in kinds.items() if kind == cells.TEXT]
    frame = table.read(path, how, [*texts, target], [*kinds, target])
    if target not in frame:
        raise InputError(no_column(path, target, list(frame.columns)))
    check_columns(path, list(kinds), list(frame.columns))
    rows = _with_target(frame[target], target, path, drop_missing)
    frame, where = frame.iloc[rows], f"column {target} of {path}"
    task = "regression" if classes is None else "classification"
    y, _ = target_of(frame[target], where, task, table.decimal_of(frame))
    if classes is not None:
        if y.dtype.kind != classes.dtype.kind:
            y = np.asarray(frame[target].astype(str).str.strip(), dtype=str)
            y = np.array({str(each): each for each in classes}.get(each, each) for each in y)
        _check_known(y, classes, rows + 1, where)
    conformer = cells.Conformer(kinds, path)
    x = conformer.frame(frame)
    conformer.say()
    return Samples(table.stem(path), x, y, classes, rows + 1, target=target)


def _check_known(y: np.ndarray, classes: np.ndarray, rows: np.ndarray, where: str) -> None:
    unknown = ~np.isin(y, classes)
    if unknown.any():
        first = unknown.argmax()
        raise InputError(
            f"row {rows[first]} of {where} is {str(y[first])!r}, which is none of the model's "
            f"classes: {table.listed(classes.astype(str).tolist())}"
        )


def check_columns(path: str, wanted: list[str], names: list[str]) -> None:
    """Refuse a file that lacks columns of the model."""
    missing = [name for name in wanted if name not in set(names)]
    if missing:
        near = table.near(missing[0], names)
        lacking = f"{path} lacks columns that the model was trained on: {table.listed(missing)}"
        raise InputError(f"{lacking}{near}; give them those names")


# ---------------------------------------------------------------- tables
def _from_table(arguments, how: Reading) -> Samples:
    path, target, drop = arguments.data, arguments.target, arguments.drop or []
    if target is None:
        columns = table.listed(table.columns_of(path, how))
        raise InputError(f"{path} is a table: --target says which column to predict ({columns})")
    frame = table.read(path, how, [target], [target])
    for name in (target, *drop):
        if name not in frame:
            raise InputError(no_column(path, name, list(frame.columns)))
    if target in drop:
        raise InputError(f"column {target} is both --target and --drop")
    rows = _with_target(frame[target], target, path, arguments.drop_missing_target)
    frame, where = frame.iloc[rows], f"column {target} of {path}"
    x = frame.drop(columns=[target, *drop])
    if not x.shape[1]:
        raise InputError(f"{path} has no column to learn from besides {target}")
    _check_count(len(x), path)
    y, is_classes = target_of(frame[target], where, arguments.task, table.decimal_of(frame))
    classes = None
    if is_classes:
        classes = check_classes(y, where, "--task regression predicts numbers")
    else:
        check_values(y, where)
    return Samples(table.stem(path), cells.tidy(x, path), y, classes, rows + 1, target=target)


def no_column(path: str, name: str, names: list[str]) -> str:
    shown = name or "without a name"
    return f"{path} has no column {shown}{table.near(name, names)}; it has {table.listed(names)}"


def _with_target(series, name: str, path: str, drop: bool) -> np.ndarray:
    """The rows that have a target; a repeated header is none."""
    missing = series.isna().to_numpy(copy=True)
    if cells.is_text(series):
        texts = series.astype(str).str.strip()
        missing |= ((texts == name) | (texts == "")).to_numpy()
    absent = np.flatnonzero(missing)
    if not len(absent):
        return np.arange(len(missing))
    what = f"column {name} of {path}, the target,"
    if len(absent) == len(missing):
        raise InputError(f"{what} has no values")
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    if not drop:
        raise InputError(
            f"{what} has no value in row {absent[0] + 1}{more} (in text, NA, None and ? are no "
            "values): --drop-missing-target leaves these rows out"
        )
    complain(f"note: {what} has no value in row {absent[0] + 1}{more}: left out")
    return np.flatnonzero(~missing)


def _check_count(samples: int, path: str) -> None:
    if samples < FEWEST_SAMPLES:
        raise InputError(f"{path} has {samples} samples; at least {FEWEST_SAMPLES} are needed")


# ---------------------------------------------------------------- arrays
def read_arrays(path: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """These arrays of an .npz file; an .npy file is its one array under the first name."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path} is not a file" if file.exists() else f"there is no file {path}")
    if file.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        # Never pickle: a data file must not be able to run code.
        with file.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {names[0]: loaded}
            held = loaded.files
            arrays = {name: loaded[name] for name in names if name in held}
    except Exception as error:
        # A damaged file fails in many ways: in zipfile, zlib, struct, tokenize, ast and NumPy.
        message = f"{path} cannot be read as an .npz file of plain arrays ({brief(error)})"
        raise InputError(message) from error
    for name in names:
        if name not in arrays:
            raise InputError(f"{path} has no array {name} (it holds: {', '.join(held) or 'none'})")
    return arrays


def features_of(path: str, count: int) -> np.ndarray:
    """X of a file, for a model of so many features."""
    x = _features(read_arrays(path, ("X",))["X"], path)
    if x.shape[1] != count:
        raise InputError(f"{path} has {x.shape[1]} features; the model takes {count}")
    return x


def _features(array: np.ndarray, path: str) -> np.ndarray:
    """An array as X: (samples, features), numbers, finite; float64."""
    if array.ndim != 2:
        shape = f"shape {array.shape}"
        raise InputError(f"X in {path} has {shape}; it must have two axes, one row a sample")
    if 0 in array.shape:
        raise InputError(f"X in {path} is empty: its shape is {array.shape}")
    return _finite_numbers(array, "X", path)


def _from_file(path: str, check: bool = True) -> Samples:
    """check: whether there is enough to learn from."""
    arrays = read_arrays(path, ("X", "y"))
    if "y" not in arrays:
        raise InputError(f"{path} holds one array; training takes an .npz file with X and y")
    x = _features(arrays["X"], path)
    y = arrays["y"]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or len(y) != len(x):
        shapes = f"X has shape {x.shape}, y has shape {y.shape}"
        raise InputError(f"{path}: {shapes}; y must have one row for each row of X")
    if check:
        _check_count(len(x), path)
    rows, what, classes = np.arange(len(x)) + 1, f"y in {path}", None
    if y.dtype.kind == "f":
        if 0 in y.shape:
            raise InputError(f"{what} is empty: its shape is {y.shape}")
        y = _finite_numbers(y, "y", path).reshape(len(y), -1)
        if check:
            check_values(y, what)
    elif y.dtype.kind not in "biuU":
        kinds = "integers, booleans, strings or floats"
        raise InputError(f"{what} has dtype {y.dtype}; it must hold {kinds}")
    elif y.ndim != 1:
        raise InputError(f"{what} has shape {y.shape}; class labels must have one axis")
    else:
        hint = "values to predict, rather than classes, must be stored as floats"
        classes = check_classes(y, what, hint) if check else np.unique(y)
    # Bytes are how images are stored.
    return Samples(Path(path).stem, x, y, classes, rows, arrays["X"].dtype == np.uint8)


def _finite_numbers(array: np.ndarray, name: str, path: str) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} in {path} has dtype {array.dtype}; it must hold numbers")
    with np.errstate(over="ignore"):  # a number beyond float64 becomes infinity, refused below
        numbers = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        place = ", ".join(str(index) for index in bad[0])
        where = f"at [{place}]" + (f" and {len(bad) - 1} more places" if len(bad) > 1 else "")
        raise InputError(f"{name} in {path} has NaN or infinity {where}")
    return numbers


def _bundled(name: str) -> Samples:
    datasets = importlib.import_module("sklearn.datasets")
    bunch = getattr(datasets, f"load_{name}")()
    rows = np.arange(len(bunch.data)) + 1
    if name == "diabetes":
        y = bunch.target[:, np.newaxis].astype(np.float64)
        return Samples(name, bunch.data, y, None, rows)
    y = np.asarray(bunch.target_names)[bunch.target]
    return Samples(name, bunch.data, y, np.unique(y), rows, one_scale=name == "digits")
