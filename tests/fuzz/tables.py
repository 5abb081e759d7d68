"""Random tables and arrays in files, plain or with quirks, for tests/fuzz/commands.py."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.helpers.optional import Package, where_installed

pa = Package("pyarrow")
parquet = Package("pyarrow.parquet")

WORDS = ("ant", "bee", "cow")
ODD_WORDS = ("", " ", "é", "蜂", "💧", 'a "b"', "a,b", "a\tb", "a\nb", "nan", "NA", "-1", "inf")
DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(400)]


def _numbers(random, rows: int, scale: float = 1.0) -> list:
    return (scale * random.normal(size=rows)).tolist()


def _words(random, rows: int, words=WORDS) -> list:
    return [words[i % len(words)] for i in random.permutation(rows)]


def _spoilt(random, column: list, cell) -> list:
    """Some of the cells, at least one, are this one."""
    where = set(random.permutation(len(column))[: random.integers(1, 2 + len(column) // 2)])
    return [cell if i in where else each for i, each in enumerate(column)]


Column = Callable[[np.random.Generator, int], list]

PLAIN: dict[str, Column] = {
    "numbers": _numbers,
    "whole": lambda random, rows: random.integers(0, 50, rows).tolist(),
    "words": _words,
    "flags": lambda random, rows: [bool(i % 2) for i in random.permutation(rows)],
    "dates": lambda random, rows: [str(DAYS[i]) for i in random.integers(0, len(DAYS), rows)],
    "missing": lambda random, rows: _spoilt(random, _numbers(random, rows), None),
    "missing words": lambda random, rows: _spoilt(random, _words(random, rows), None),
}
# Of these a class has several rows, and a number changes.
TARGETS = ("numbers", "words", "flags")

QUIRKS: dict[str, Column] = {
    "constant": lambda random, rows: [7] * rows,
    "nearly constant": lambda random, rows: _spoilt(random, [0.1] * rows, 0.1 + 1e-17),
    "huge": lambda random, rows: _numbers(random, rows, 10.0 ** random.integers(30, 309)),
    "tiny": lambda random, rows: _numbers(random, rows, 10.0 ** -random.integers(30, 324)),
    "far": lambda random, rows: _spoilt(random, _numbers(random, rows), 1e300),
    "far away": lambda random, rows: (1e16 + 2 * random.normal(size=rows)).tolist(),
    "infinite": lambda random, rows: _spoilt(random, _numbers(random, rows), "-inf"),
    "digits": lambda random, rows: ["9" * int(i) for i in random.integers(1, 400, rows)],
    "large": lambda random, rows: random.integers(2**62, 2**63 - 1, rows).tolist(),
    "mixed": lambda random, rows: _spoilt(random, _numbers(random, rows), "x"),
    "mostly text": lambda random, rows: _spoilt(random, _words(random, rows), 1.5),
    "all missing": lambda random, rows: [None] * rows,
    "nearly all missing": lambda random, rows: [3.0] + [None] * (rows - 1),
    "text of its own": lambda random, rows: [f"row {i}" for i in random.permutation(rows)],
    "odd words": lambda random, rows: _words(random, rows, ODD_WORDS),
    "rare": lambda random, rows: ["odd"] + ["even"] * (rows - 1),
    "missing flags": lambda random, rows: _spoilt(random, [True, False] * (rows // 2), None),
    "numbered words": lambda random, rows: _words(random, rows, ("01", "1", "1.0", "001")),
    "late dates": lambda random, rows: _spoilt(random, [str(DAYS[0])] * rows, "9999-12-31"),
    "no dates": lambda random, rows: _spoilt(random, [str(DAYS[5])] * rows, "2020-02-31"),
    "times": lambda random, rows: _words(random, rows, ("2020-01-01T12:00Z", "2020-01-02 01:02")),
    "zones": lambda random, rows: _words(
        random, rows, ("2020-01-01T12:00+99:00", "2020-01-01T12:00-05:00")
    ),
    "complex": lambda random, rows: _words(random, rows, ("1+2j", "3", "0x1F", "1_000", "1e5")),
}
# What only Parquet can hold.
OBJECTS: dict[str, Column] = {
    "lists": lambda random, rows: [[1.0, 2.0]] * rows,
    "bytes": lambda random, rows: [b"\xff"] * rows,
    "durations": lambda random, rows: [
        datetime.timedelta(days=int(i)) for i in random.permutation(rows)
    ],
    "days": lambda random, rows: [DAYS[i] for i in random.integers(0, 9, rows)],
    "clock": lambda random, rows: [datetime.time(int(i) % 24) for i in random.permutation(rows)],
    "early": lambda random, rows: [datetime.date(1, 1, 1 + i % 9) for i in range(rows)],
}
ODD_NAMES = (*ODD_WORDS, "0", "--lr", "a" * 300, "column 0")


class Table(NamedTuple):
    """names, columns: as they are written; target: the name of one;  plain: without quirks."""

    names: list[str]
    columns: list[list]
    target: str
    plain: bool

    @property
    def rows(self) -> int:
        return len(self.columns[0])


def table(random, quirks: bool) -> Table:
    """From two to five columns, the last of which is the target."""
    kinds = PLAIN | QUIRKS if quirks else PLAIN
    rows = int(random.choice([1, 2, 9, 10, 11, 30] if quirks else [30, 45]))
    targets = list(kinds) if quirks and random.integers(2) else TARGETS
    count = int(random.integers(1, 5))
    chosen = [*random.choice(list(kinds), count), random.choice(targets)]
    columns = [kinds[kind](random, rows) for kind in chosen]
    columns = [(column * rows)[:rows] if column else [None] * rows for column in columns]
    names = [f"column {i}" for i in range(count + 1)]
    if quirks and random.integers(3) == 0:
        names[random.integers(count + 1)] = str(random.choice(ODD_NAMES))
    return Table(names, columns, names[-1], not quirks)


def changed(random, given: Table) -> Table:
    """Another table for a model that was trained on this one."""
    place, rows = int(random.integers(len(given.names))), given.rows
    names, columns = list(given.names), [list(column) for column in given.columns]

    def rename():
        names[place] = str(random.choice(ODD_NAMES))

    def drop():
        del names[place], columns[place]

    def replace():
        kinds = PLAIN | QUIRKS
        columns[place] = (kinds[str(random.choice(list(kinds)))](random, rows) * rows)[:rows]

    def shorten():
        columns[:] = [column[:1] for column in columns]

    def empty():
        columns[:] = [[] for _ in columns]

    def add():
        names.append("more")
        columns.append(_words(random, rows))

    def shuffle():
        order = random.permutation(len(names))
        names[:], columns[:] = [names[i] for i in order], [columns[i] for i in order]

    changes = (rename, drop, replace, replace, shorten, empty, add, shuffle)
    changes[random.integers(len(changes))]()
    return Table(names, columns, given.target, False) if names else given


# ---------------------------------------------------------------- files
def _text(given: Table, separator: str = ",", ending: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=ending)
    writer.writerow(given.names)
    writer.writerows(zip(*given.columns, strict=True))  # None is written as nothing
    return text.getvalue().encode()


def _parquet(given: Table) -> bytes:
    """Columns of several types are text."""
    arrays = []
    for column in given.columns:
        try:
            arrays.append(pa.array(column))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            arrays.append(pa.array([None if each is None else str(each) for each in column]))
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays(arrays, names=given.names), file)
    return file.getvalue()


Writer = Callable[[Table], bytes]
TEXT: dict[str, Writer] = {
    ".csv": _text,
    ".tsv": lambda given: _text(given, "\t"),
    ".csv.gz": lambda given: gzip.compress(_text(given), mtime=0),
}
PARQUET = where_installed("pyarrow", {".parquet": _parquet, ".pq": _parquet})
FORMATS = where_installed("pandas", TEXT | PARQUET)
# Text that is unusual: some of it is refused.
TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
    "CR": lambda raw: raw.replace(b"\n", b"\r"),
    "no last newline": lambda raw: raw.rstrip(b"\n"),
    "BOM": lambda raw: b"\xef\xbb\xbf" + raw,
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "latin 1": lambda raw: raw.replace(b"a", b"\xe9"),
    "semicolons": lambda raw: raw.replace(b",", b";"),
    "decimal commas": lambda raw: raw.replace(b".", b","),
    "tabs": lambda raw: raw.replace(b",", b"\t"),
    "blank lines": lambda raw: raw.replace(b"\n", b"\n\n"),
    "first line blank": lambda raw: b"\n" + raw,
    "spaces": lambda raw: raw.replace(b",", b" , "),
    "a longer line": lambda raw: raw + b"1,2,3,4,5,6,7,8,9\n",
    "a shorter line": lambda raw: raw + b"1\n",
    "a longer first line": lambda raw: b"z," + raw,
    "open quotes": lambda raw: raw + b'"1,2',
    "NUL": lambda raw: raw.replace(b"1", b"\0", 3),
    "no names": lambda raw: raw.partition(b"\n")[2],
    "names alone": lambda raw: raw.partition(b"\n")[0],
}


def damage(random, raw: bytes) -> bytes:
    """As it may happen to any file."""
    kind = random.integers(4)
    if kind == 0:
        return raw[: random.integers(len(raw) + 1)]
    if kind == 1:
        return random.bytes(random.integers(1, 300))
    bytes_ = bytearray(raw)
    for place in random.integers(0, max(len(raw), 1), 3 if raw else 0):
        bytes_[place] = random.integers(256)
    return bytes(bytes_)


class File(NamedTuple):
    """table: what was written;  plain: it has no quirks;  broken: nothing can be read from it;
    rows: how many there are, if nothing has happened to them."""

    path: str
    table: Table | None
    plain: bool = False
    broken: bool = False
    rows: int | None = None


def write(random, path: str, given: Table, quirks: bool) -> File:
    """The table in a file of some format, whose ending is added to the path.

    quirks: it may be unusual text, damaged, or of another format than its ending says.
    """
    ending = str(random.choice(list(FORMATS)))
    writer, how = FORMATS[ending], int(random.integers(6)) if quirks else -1
    if how == 0:
        writer = FORMATS[str(random.choice(list(FORMATS)))]
    raw = writer(given)
    if how in (1, 2) and writer in (FORMATS[".csv"], FORMATS[".tsv"]):
        raw = TEXTS[str(random.choice(list(TEXTS)))](raw)
    if how == 3:
        raw = damage(random, raw)
    if how == 4 and random.integers(3) == 0:
        raw = b""
    Path(path + ending).write_bytes(raw)
    rows = None if quirks else given.rows
    return File(path + ending, given, given.plain and not quirks, not raw, rows)


def table_file(random, path: str, quirks: bool) -> File:
    given = table(random, quirks and random.integers(3) > 0)
    if quirks and ".parquet" in FORMATS and random.integers(8) == 0:
        kind = str(random.choice(list(OBJECTS)))
        column = OBJECTS[kind](random, given.rows)
        given = Table([*given.names, kind], [*given.columns, column], given.target, False)
        Path(path + ".parquet").write_bytes(_parquet(given))
        return File(path + ".parquet", given)
    return write(random, path, given, bool(quirks and random.integers(2)))


# ---------------------------------------------------------------- arrays
FEATURES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "float32": lambda random, rows: random.normal(size=(rows, 3)).astype("f4"),
    "bytes": lambda random, rows: random.integers(0, 256, (rows, 4)).astype("u1"),
    "flags": lambda random, rows: random.integers(0, 2, (rows, 2)).astype(bool),
    "other order": lambda random, rows: random.normal(size=(rows, 3)).astype(">f8").T.copy().T,
}
ODD_FEATURES: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "huge": lambda random, rows: random.normal(size=(rows, 3)) * 10.0 ** random.integers(30, 309),
    "tiny": lambda random, rows: random.normal(size=(rows, 3)) * 10.0 ** -random.integers(30, 324),
    "far": lambda random, rows: np.where(np.arange(rows)[:, None] == 0, 1e39, [[1.0, 2.0]]),
    "half": lambda random, rows: random.normal(size=(rows, 3)).astype("f2"),
    "long": lambda random, rows: random.normal(size=(rows, 2)).astype(np.longdouble),
    "large": lambda random, rows: random.integers(0, 2**64, (rows, 2), "u8"),
    "NaN": lambda random, rows: np.where(random.random((rows, 3)) < 0.1, np.nan, 1.0),
    "constant": lambda random, rows: np.ones((rows, 2)),
    "flat": lambda random, rows: random.normal(size=rows),
    "deep": lambda random, rows: random.normal(size=(rows, 2, 2)),
    "scalar": lambda random, rows: np.array(3.0),
    "wide": lambda random, rows: np.ones((rows, 0)),
    "text": lambda random, rows: np.full((rows, 2), "é"),
    "complex": lambda random, rows: np.ones((rows, 2), complex),
    "dates": lambda random, rows: np.full((rows, 2), "2020-01-01", "M8[D]"),
    "objects": lambda random, rows: np.full((rows, 2), None),
    "records": lambda random, rows: np.zeros(rows, "f8,i4"),
    "void": lambda random, rows: np.zeros((rows, 2), "V4"),
}
ANSWERS: dict[str, Callable[[np.random.Generator, int], Any]] = {
    "words": lambda random, rows: np.array(WORDS)[np.arange(rows) % 3],
    "numbers": lambda random, rows: np.arange(rows) % 2 - 1,
    "flags": lambda random, rows: np.arange(rows) % 2 > 0,
    "values": lambda random, rows: random.normal(size=rows),
    "several": lambda random, rows: random.normal(size=(rows, 2)).astype("f4"),
}
ODD_ANSWERS = ODD_FEATURES | {
    "rare": lambda random, rows: np.arange(rows) == 0,
    "each": lambda random, rows: np.arange(rows),
    "odd": lambda random, rows: np.array(ODD_WORDS)[np.arange(rows) % 4],
    "long words": lambda random, rows: np.array(["x" * 500, "y"])[np.arange(rows) % 2],
    "one column": lambda random, rows: (np.arange(rows) % 2)[:, None],
    "short": lambda random, rows: np.arange(rows - 1) % 2,
    "last": lambda random, rows: np.r_[np.zeros(rows - 1), 1e-300],
}


def array_file(random, path: str, quirks: bool) -> File:
    """X and y in .npz, or X alone in .npy."""
    odd = random.integers(3) if quirks else -1
    rows = 30 if odd else int(random.choice([1, 2, 9, 10, 11, 30]))
    features = FEATURES | ODD_FEATURES if odd in (0, 1) else FEATURES
    answers = ANSWERS | ODD_ANSWERS if odd in (0, 2) else ANSWERS
    arrays = {
        "X": features[str(random.choice(list(features)))](random, rows),
        "y": answers[str(random.choice(list(answers)))](random, rows),
    }
    file, ending = io.BytesIO(), ".npz"
    if quirks and random.integers(6) == 0:
        arrays.pop(str(random.choice(["X", "y"])))
    if quirks and random.integers(6) == 0 and "X" in arrays:
        ending = ".npy"
        np.save(file, arrays["X"])
    else:
        np.savez(file, **arrays)
    raw = file.getvalue()
    if quirks and random.integers(5) == 0:
        raw = damage(random, raw)
    Path(path + ending).write_bytes(raw)
    return File(path + ending, None, not quirks, not raw, None if quirks else rows)
