"""What the command line trains on: scikit-learn's small data sets, .npz files and tables."""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpumlp.cli import table
from gpumlp.cli.answers import check_classes, check_values
from gpumlp.cli.datasets import DATASETS
from gpumlp.cli.error import InputError, brief
from gpumlp.cli.target import target_of

FEWEST_SAMPLES = 10


@dataclasses.dataclass(frozen=True)
class Data:
    """Samples with their classes or values.

    x (samples, features) float64, or the columns of a table; y (samples,) class numbers with
    `classes` their labels, or y (samples, targets) float64 with `classes` None. one_scale: the
    features are of one kind and unit, as the pixels of an image are. target: the name of y, if it
    has one. notes: sentences for the user about what was left out.
    """

    name: str
    x: np.ndarray | table.Table
    y: np.ndarray
    classes: np.ndarray | None
    one_scale: bool = False
    target: str | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        samples, features = self.x.shape
        if self.classes is not None:
            aim = f"{len(self.classes)} classes" + (f" of {self.target}" if self.target else "")
        elif self.target:
            aim = f"{self.target} to predict"
        else:
            aim = f"{self.y.shape[1]} value{'s' * (self.y.shape[1] > 1)} to predict"
        return f"{self.name}: {samples} samples, {features} features, {aim}"


def load(
    name: str, target: str | None = None, task: str | None = None, drop: Sequence[str] = ()
) -> Data:
    """A data set by its name, or an .npz file or a table by its path.

    target, task, drop: of a table, the column to predict, what it is, and columns to leave out.
    """
    arrays = name in DATASETS or Path(name).suffix in table.ARRAYS
    if table.is_table(name) or (target is not None and not arrays):
        return _from_table(name, target, task, drop)
    for option, value in (("--target", target), ("--task", task), ("--drop", drop)):
        if value:
            raise InputError(f"{option} is for tables (.csv, .tsv, .parquet), and {name} is none")
    if name in DATASETS:
        return _bundled(name)
    if Path(name).suffix != ".npz" and not Path(name).exists():
        raise InputError(f"{name!r} is neither a file nor one of {', '.join(DATASETS)}")
    return _from_file(name)


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


def features(array: np.ndarray, path: str) -> np.ndarray:
    """An array as X: (samples, features), numbers, finite; float64."""
    if array.ndim != 2:
        shape = f"shape {array.shape}"
        raise InputError(f"X in {path} has {shape}; it must have two axes, one row a sample")
    if 0 in array.shape:
        raise InputError(f"X in {path} is empty: its shape is {array.shape}")
    return _finite_numbers(array, "X", path)


def features_of(path: str, count: int) -> np.ndarray:
    """X of a file, for a model of so many features."""
    x = features(read_arrays(path, ("X",))["X"], path)
    if x.shape[1] != count:
        raise InputError(f"{path} has {x.shape[1]} features; the model takes {count}")
    return x


def _from_file(path: str) -> Data:
    arrays = read_arrays(path, ("X", "y"))
    if "y" not in arrays:
        raise InputError(f"{path} holds one array; training takes an .npz file with X and y")
    x = features(arrays["X"], path)
    y = arrays["y"]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2) or len(y) != len(x):
        shapes = f"X has shape {x.shape}, y has shape {y.shape}"
        raise InputError(f"{path}: {shapes}; y must have one row for each row of X")
    _check_count(len(x), path)
    numbers, classes = (_values(y, path), None) if y.dtype.kind == "f" else _numbered(y, path)
    # Bytes are how images are stored.
    one_scale = arrays["X"].dtype == np.uint8
    return Data(Path(path).stem, x, numbers, classes, one_scale)


def _from_table(path: str, target: str | None, task: str | None, drop: Sequence[str]) -> Data:
    if target is None:
        columns = table.columns_of(path)
        raise InputError(f"{path} is a table: --target says which column to predict ({columns})")
    rows, notes = table.read(path, target, drop)
    _check_count(len(rows), path)
    y, classes = target_of(rows, target, task)
    return Data(table.stem(path), rows.without(target), y, classes, target=target, notes=notes)


def _check_count(samples: int, path: str) -> None:
    if samples < FEWEST_SAMPLES:
        raise InputError(f"{path} has {samples} samples; at least {FEWEST_SAMPLES} are needed")


def _values(y: np.ndarray, path: str) -> np.ndarray:
    """y for regression, as (samples, targets)."""
    if 0 in y.shape:
        raise InputError(f"y in {path} is empty: its shape is {y.shape}")
    y = _finite_numbers(y, "y", path).reshape(len(y), -1)
    check_values(y, f"y in {path}")
    return y


def _numbered(y: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of any kind as class numbers 0, 1, …, and the label of each number."""
    if y.dtype.kind not in "biuU":
        kinds = "integers, booleans, strings or floats"
        raise InputError(f"y in {path} has dtype {y.dtype}; it must hold {kinds}")
    if y.ndim != 1:
        raise InputError(f"y in {path} has shape {y.shape}; class labels must have one axis")
    classes, numbers, counts = np.unique(y, return_inverse=True, return_counts=True)
    otherwise = "values to predict, rather than classes, must be stored as floats"
    check_classes(classes, counts, f"y in {path}", otherwise)
    return numbers, classes


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


def _bundled(name: str) -> Data:
    datasets = importlib.import_module("sklearn.datasets")
    bunch = getattr(datasets, f"load_{name}")()
    if name == "diabetes":
        return Data(name, bunch.data, bunch.target[:, np.newaxis].astype(np.float64), None)
    classes = np.asarray(bunch.target_names)
    return Data(name, bunch.data, bunch.target, classes, one_scale=name == "digits")


def split(data: Data, share: float, rng: np.random.Generator) -> tuple[Data, Data]:
    """Sets a random share of the samples aside, the same share of every class.

    Returns (rest, aside). Every class keeps at least one sample in the rest.
    """
    order = rng.permutation(len(data.x))
    aside = max(1, round(share * len(order)))
    if data.classes is not None:
        order = order[_ranks(data.y[order]).argsort(kind="stable")]
    parts = order[aside:], order[:aside]
    rest, held = (dataclasses.replace(data, x=data.x[rows], y=data.y[rows]) for rows in parts)
    return rest, held


def _ranks(labels: np.ndarray) -> np.ndarray:
    """For each sample, how far through its own class it stands, in [0, 1).

    Sorted by rank, any prefix holds nearly its share of every class.
    """
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        ranks[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return ranks
