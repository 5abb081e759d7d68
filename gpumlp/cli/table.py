"""Tables of named columns from CSV and Parquet files, read with pandas.

pandas is imported when a table is read: the rest of the command line does without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpumlp.cli.error import InputError, brief

CSV, TSV, PARQUET = ".csv", ".tsv", (".parquet", ".pq")
ARRAYS = (".npz", ".npy")
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
# What counts as a missing value in CSV, besides what pandas takes for one (nothing, NA, NaN, null).
MISSING = ["?"]
SOME = 12  # so many names are listed in a complaint


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a frame (a pandas.DataFrame), in some order; a part of it copies nothing."""

    path: str
    frame: Any
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> Table:
        """The part with these rows, as of an array."""
        return dataclasses.replace(self, rows=self.rows[rows])

    @property
    def names(self) -> list[str]:
        return list(self.frame.columns)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.names)

    def without(self, name: str) -> Table:
        return dataclasses.replace(self, frame=self.frame.drop(columns=name))

    def column(self, name: str):
        """The values of a column in these rows, as a pandas.Series."""
        return self.frame[name].take(self.rows)

    def where(self, name: str, index: int | None = None) -> str:
        """What to call a column in a complaint, or the value of its row `index`."""
        place = f"column {name} of {self.path}"
        return place if index is None else f"row {self.rows[index] + 1} of {place}"


def is_table(path: str) -> bool:
    """Whether a file's name is that of a table."""
    return _suffix(path) in (CSV, TSV, *PARQUET)


def stem(path: str) -> str:
    """The file's name without its endings: sales for data/sales.csv.gz."""
    plain = Path(path)
    return Path(plain.stem).stem if plain.suffix in COMPRESSED else plain.stem


def columns_of(path: str) -> str:
    """The names of a file's columns, the first few if they are many."""
    return _list(_names(path)[0])


def read(path: str, target: str, drop: Sequence[str]) -> tuple[Table, tuple[str, ...]]:
    """All columns that can be trained on, and sentences about those that are left out."""
    names, index = _names(path)
    for name in (target, *drop):
        if name not in names:
            which = _shown(name) if name else "without a name"
            raise InputError(f"{path} has no column {which}; its columns are {_list(names)}")
    if target in drop:
        raise InputError(f"column {target} is both --target and --drop")
    index -= {target}
    used = [name for name in names if name and name not in drop and name not in index]
    notes = []
    if "" in names:
        notes.append(f"the column without a name is left out of {path}")
    notes += [f"column {name} is left out: it is the table's index" for name in sorted(index)]
    if used == [target]:
        raise InputError(f"{path} has no column to learn from besides {target}")
    return _read(path, names, used, ()), tuple(notes)


def read_all(path: str) -> Table:
    """All columns that have names, but for the table's index."""
    names, index = _names(path)
    used = [name for name in names if name and name not in index]
    if not used:
        raise InputError(f"{path} has no columns with names")
    return _read(path, names, used, ())


def read_columns(path: str, used: list[str], texts: list[str]) -> Table:
    """These columns, found by their names; of a CSV file, `texts` as they are written."""
    names, _ = _names(path)
    missing = [name for name in used if name not in names]
    if missing:
        raise InputError(f"{path} lacks columns that the model was trained on: {_list(missing)}")
    return _read(path, names, used, texts)


def _suffix(path: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


def _list(names: list[str]) -> str:
    """The names as text, the first few if they are many."""
    shown = ", ".join(_shown(name) for name in names[:SOME])
    return shown + (f" and {len(names) - SOME} more" if len(names) > SOME else "")


def _shown(name: str) -> str:
    if not name:
        return "one without a name"
    return name if name.strip() else repr(name)


def _names(path: str) -> tuple[list[str], set[str]]:
    """The names of all columns in the file, and of those that are only pandas's index."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{path} is not a file" if file.exists() else f"there is no file {path}")
    if file.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    if _suffix(path) in PARQUET:
        with _complaints(path, "as a Parquet file"):
            schema = _import("pyarrow.parquet").read_schema(path)
            described = (schema.pandas_metadata or {}).get("index_columns", [])
            return list(schema.names), {name for name in described if isinstance(name, str)}
    first = _read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, na_values=[])
    names = [str(name) for name in first.iloc[0]]
    if any(letter < " " and not letter.isspace() for name in names for letter in name):
        raise InputError(f"{path} is not a text file: {_csv_kind(path)} was expected")
    if len(names) == 1:
        for separator, called in ((";", "';'"), ("\t", "tabs"), ("|", "'|'"), (",", "','")):
            if separator in names[0]:
                raise InputError(
                    f"the columns of {path} seem to be separated by {called}: "
                    f"{_csv_kind(path)} was expected"
                )
    return names, set()


def _read(path: str, names: list[str], used: list[str], texts) -> Table:
    """The used columns of a file that has these names."""
    twice = sorted({name for name in used if names.count(name) > 1})
    if twice:
        raise InputError(f"{path} has more than one column named {_list(twice)}")
    if _suffix(path) in PARQUET:
        with _complaints(path, "as a Parquet file"):
            stored = _import("pyarrow.parquet").read_table(path, columns=used)
            stored.validate(full=True)  # text of a damaged file need not be any
            frame = stored.to_pandas(date_as_object=False, split_blocks=True, self_destruct=True)
        if not set(used).isdisjoint(frame.index.names):
            frame = frame.reset_index()  # the index is the target
    else:
        # All columns are read, as only then pandas complains of lines that have too many.
        frame = _read_csv(path, dtype=dict.fromkeys(texts, "str"))
        positions = [names.index(name) for name in used]
        frame = frame.iloc[:, positions].set_axis(used, axis="columns")
    if not len(frame):
        raise InputError(f"{path} has no rows")
    return Table(path, frame[used], np.arange(len(frame)))


def _read_csv(path: str, **how):
    """A frame from a text file; its first line names the columns, unless told otherwise."""
    pandas = _import("pandas")
    options = dict(
        sep="\t" if _suffix(path) == TSV else ",",
        encoding="utf-8-sig",
        skipinitialspace=True,
        # Else a first line that is too short would make row labels of the first column.
        index_col=False,
        # Each column is looked at as a whole, so that it has one type.
        low_memory=False,
        na_values=MISSING,
    )
    with _complaints(path, f"as {_csv_kind(path)}"):
        return pandas.read_csv(path, **(options | how))


def _csv_kind(path: str) -> str:
    return f"text in columns separated by {'tabs' if _suffix(path) == TSV else 'commas'}"


@contextlib.contextmanager
def _complaints(path: str, expected: str):
    """Makes a sentence of whatever goes wrong while a file is read."""
    try:
        with warnings.catch_warnings():
            # pandas warns of a header that does not fit the lines, and goes on.
            warnings.filterwarnings("error", message="Length of header or names")
            yield
    except (InputError, MemoryError):
        raise
    except Warning as warning:
        raise InputError(
            f"{path} cannot be read {expected}: its first line names fewer columns than follow"
        ) from warning
    except Exception as error:
        # A damaged file fails in many ways: in pandas, Arrow, codecs and decompression.
        raise InputError(f"{path} cannot be read {expected} ({brief(error)})") from error


def _import(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputError(
            f'tables need {package}, which is missing here: pip install "gpumlp[table]" ({error})'
        ) from error
