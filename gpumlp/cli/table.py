"""Tables of named columns from files, read with pandas.

pandas is imported when a table is read: the rest of the command line does without it.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import csv
import difflib
import gzip
import importlib
import lzma
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpumlp.cli.error import InputError, brief, complain

ARRAYS = (".npz", ".npy")
PARQUET, FEATHER = (".parquet", ".pq"), (".feather", ".arrow")
EXCEL, JSON = (".xlsx", ".xls", ".xlsm"), (".jsonl", ".ndjson", ".json")
COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": None}
# Missing in text, besides what pandas takes for that (nothing, NA, NaN, null, ...).
MISSING = ["?"]
DECIMAL = "decimal"  # among the attributes of a frame
SOME = 12  # so many names are listed in a complaint
SEPARATORS, LINES, HEAD = ",;\t|", 100, 1 << 20  # tried, on so many lines, of so many bytes


class Reading(NamedTuple):
    """How text is read; None: as the file looks."""

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    na: Sequence[str] = ()
    header: bool = True
    quiet: bool = False  # whether nothing is said of it

    @classmethod
    def of(cls, arguments) -> Reading:
        na, header = arguments.na or (), not arguments.no_header
        return cls(arguments.sep, arguments.decimal, arguments.encoding, na, header)

    def refuse_given(self, path: str, kind: str) -> None:
        """Of a file that is no text."""
        options = dict(zip(("--sep", "--decimal", "--encoding", "--na"), self, strict=False))
        options["--no-header"] = not self.header
        for option, value in options.items():
            if value:
                raise InputError(f"{option} is for tables of text, and {path} is {kind}")


def is_table(path: str) -> bool:
    """Whether a file's name is that of a table."""
    return _suffix(path) in (".csv", ".tsv", *PARQUET, *FEATHER, *EXCEL, *JSON)


def stem(path: str) -> str:
    """The file's name without its endings: sales for data/sales.csv.gz."""
    plain = Path(path)
    return Path(plain.stem).stem if plain.suffix.lower() in COMPRESSED else plain.stem


def listed(names: Sequence[str]) -> str:
    """The names as text, the first few if they are many."""
    more = f" and {len(names) - SOME} more" if len(names) > SOME else ""
    return ", ".join(names[:SOME]) + more


def near(name: str, names: Sequence[str]) -> str:
    """Names that are like this one, as the end of a sentence, or nothing."""
    by_folded = {other.casefold(): other for other in names}
    alike = difflib.get_close_matches(name.casefold(), by_folded, n=3)
    return f" (near it: {', '.join(by_folded[folded] for folded in alike)})" if alike else ""


def decimal_of(frame) -> str:
    """The mark that the numbers in its text have."""
    return frame.attrs.get(DECIMAL, ".")


def columns_of(path: str, how: Reading) -> list[str]:
    """The names of a file's columns."""
    return list(next(pieces(path, how, rows=1, notes=False)).columns)


def read(path: str, how: Reading, texts: Sequence[str] = (), index: Sequence[str] = ()):
    """A file as one frame (pandas.DataFrame), with at least one row; see `pieces`."""
    return next(pieces(path, how, texts, index))


def pieces(
    path: str,
    how: Reading,
    texts: Sequence[str] = (),
    index: Sequence[str] = (),
    rows: int | None = None,
    notes: bool = True,
) -> Iterator[Any]:
    """Frames of so many rows, or one of all, the first of which is not empty.

    texts: columns that stay as they are written. index: those wanted although they are only
    pandas's index. notes: whether to say what was done to names and left out.
    """
    file, suffix = Path(path), _suffix(path)
    if not file.is_file():
        raise InputError(f"{path} is not a file" if file.exists() else f"there is no file {path}")
    if file.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    kinds = {PARQUET: _parquet, FEATHER: _feather, EXCEL: _excel, JSON: _json}
    reader = next((kinds[suffixes] for suffixes in kinds if suffix in suffixes), _text)
    said_kinds = {
        _parquet: "a Parquet file",
        _feather: "a Feather file",
        _excel: "an Excel file",
        _json: "JSON, an object on each line",
        _text: "text",
    }
    kind = said_kinds[reader]
    how = how._replace(quiet=not notes)
    if reader is not _text:
        how.refuse_given(path, f"no such text but {kind}")
    with _complaints(path, f"as {kind}"):
        frames = reader(path, how, texts, rows)
        names, unnamed, indexes, decimal = next(frames)
        names, sentences = _unique(names)
        indexes = [name for name in indexes if name not in index]
        sentences += [f"column {name} is left out: it is the table's index" for name in indexes]
        sentences += ["the column without a name is left out"] * any(unnamed)
        used = [i for i, name in enumerate(names) if not unnamed[i] and name not in indexes]
        for sentence in sentences if notes else ():
            complain(f"note: {sentence} of {path}")
        if not used:
            raise InputError(f"{path} has no columns with names")
        empty = True
        for frame in frames:
            if len(frame):
                empty = False
                frame = frame.set_axis(names, axis="columns")
                frame = frame if len(used) == len(names) else frame.iloc[:, used]
                frame.attrs[DECIMAL] = decimal
                yield frame
        if empty:
            raise InputError(f"{path} has no rows")


def _unique(names: list[str]) -> tuple[list[str], list[str]]:
    """Names of which none comes twice, and sentences about those that are new."""
    seen: Counter[str] = Counter()
    taken, sentences, unique = set(names), [], []
    for name in names:
        new = name
        while name and seen[name] and new in taken:
            new = f"{name}.{seen[name]}"
            seen[name] += 1
        seen[name] += not seen[name]
        if new != name:
            taken.add(new)
            sentences.append(f"another column {name} is called {new}")
        unique.append(new)
    return unique, sentences


def _suffix(path: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED:
        return suffixes[-2]
    return suffixes[-1] if suffixes else ""


# ---------------------------------------------------------------- kinds of files
# Each yields the names of all columns, which of them have none, which are pandas's index, and the
# decimal mark of text; then frames.
def _text(path: str, how: Reading, texts, rows) -> Iterator[Any]:
    pandas = _import("pandas")
    how = recognised(path, how)
    options = dict(
        sep=how.sep,
        decimal=how.decimal,
        encoding=how.encoding,
        skipinitialspace=True,
        index_col=False,  # else a short first line would make row labels of the first column
        low_memory=False,  # each column is looked at as a whole, so that it has one type
        na_values=[*MISSING, *how.na],
        header=0 if how.header else None,
    )
    of_first_line: dict[str, Any] = dict(
        header=None, nrows=1, dtype=str, keep_default_na=False, na_values=[]
    )
    cells = [str(cell) for cell in pandas.read_csv(path, **(options | of_first_line)).iloc[0]]
    if any(letter < " " and not letter.isspace() for cell in cells for letter in cell):
        raise InputError(f"{path} is not a text file")
    names = [cell.strip() for cell in cells]
    if not how.header:
        names = [str(i + 1) for i in range(len(names))]
    unnamed = [not name or re.fullmatch(r"Unnamed: \d+", name) is not None for name in names]
    yield names, unnamed, [], how.decimal
    labels = cells if how.header else range(len(names))
    dtypes = {label: "str" for label, name in zip(labels, names, strict=True) if name in texts}
    if rows is None:
        yield pandas.read_csv(path, dtype=dtypes, **options)
        return
    with pandas.read_csv(path, dtype=dtypes, chunksize=rows, **options) as reader:
        yield from reader


def _parquet(path: str, how: Reading, texts, rows) -> Iterator[Any]:
    pyarrow, parquet = _import("pyarrow"), _import("pyarrow.parquet")
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        yield _arrow_names(schema)
        if rows is None:
            yield _from_arrow(file.read())
            return
        for batch in file.iter_batches(rows):
            yield _from_arrow(pyarrow.Table.from_batches([batch]))


def _feather(path: str, how: Reading, texts, rows) -> Iterator[Any]:
    table = _import("pyarrow.feather").read_table(path)
    yield _arrow_names(table.schema)
    frame = _from_arrow(table)
    for start in range(0, len(frame), rows or len(frame)):
        yield frame.iloc[start : start + (rows or len(frame))]


def _arrow_names(schema) -> tuple[list[str], list[bool], list[str], str]:
    described = (schema.pandas_metadata or {}).get("index_columns", [])
    names = [name.strip() for name in schema.names]
    index = [name for name in described if isinstance(name, str)]  # else a range
    return names, [not name for name in names], index, "."


def _from_arrow(table):
    table.validate(full=True)  # text of a damaged file need not be any
    table = table.rename_columns([str(i) for i in range(table.num_columns)])
    return table.to_pandas(date_as_object=False, split_blocks=True, ignore_metadata=True)


def _excel(path: str, how: Reading, texts, rows) -> Iterator[Any]:
    pandas = _import("pandas")
    if not path.lower().endswith(".xls"):
        _import("openpyxl", "Excel files", "excel")
    first = pandas.read_excel(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    if not len(first):
        raise InputError(f"{path} has no rows")
    names = [str(cell).strip() for cell in first.iloc[0]]
    yield names, [not name for name in names], [], "."
    yield pandas.read_excel(path, na_values=[*MISSING, *how.na])


def _json(path: str, how: Reading, texts, rows) -> Iterator[Any]:
    pandas = _import("pandas")
    with pandas.read_json(path, lines=True, chunksize=rows or 1 << 62, dtype=False) as reader:
        names: list[str] | None = None
        for frame in reader:
            if names is None:
                names = [str(name) for name in frame.columns]
                stripped = [name.strip() for name in names]
                yield stripped, [not name for name in stripped], [], "."
            yield frame.reindex(columns=names)
        if names is None:
            raise InputError(f"{path} has no rows")


# ---------------------------------------------------------------- what a text file looks like
def recognised(path: str, how: Reading) -> Reading:
    """How a text file is read, with nothing left open."""
    opener = COMPRESSED.get(Path(path).suffix.lower(), open)
    head = b""
    if opener is not None:
        with opener(path, "rb") as file:
            head = file.read(HEAD)
    encoding = how.encoding or _encoding(path, head, how.quiet)
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    lines = [line for line in text.splitlines()[:LINES] if line.strip()]
    sep = how.sep or ("\t" if _suffix(path) == ".tsv" else _separator(lines))
    return how._replace(sep=sep, encoding=encoding, decimal=how.decimal or _decimal(lines, sep))


def _encoding(path: str, head: bytes, quiet: bool) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        if not quiet:
            complain(f"note: {path} is no UTF-8: it is read as cp1252 (--encoding says otherwise)")
        return "cp1252"
    return "utf-8-sig"


def _separator(lines: list[str]) -> str:
    """That which cuts the most lines into as many columns as the first, and into several."""

    def fit(separator: str) -> tuple[int, int]:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
        except csv.Error:
            return 0, 0
        several = bool(counts) and counts[0] > 1
        return (counts.count(counts[0]), counts[0]) if several else (0, 0)

    return max(SEPARATORS, key=fit)


def _decimal(lines: list[str], sep: str) -> str:
    """The comma, where cells that hold one look like numbers, and none has a point behind it."""
    if sep == ",":
        return "."
    cells = [cell.strip() for row in csv.reader(lines[1:], delimiter=sep) for cell in row]
    commas = sum(bool(re.fullmatch(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+", cell)) for cell in cells)
    points = sum(bool(re.fullmatch(r"[+-]?(\d+|\d{1,3}(,\d{3})+)\.\d+", cell)) for cell in cells)
    return "," if commas > points else "."


@contextlib.contextmanager
def _complaints(path: str, expected: str):
    """Make a sentence of whatever goes wrong while a file is read."""
    try:
        with warnings.catch_warnings():
            # pandas warns of a header that does not fit the lines, and goes on.
            warnings.filterwarnings("error", message="Length of header or names")
            yield
    except (InputError, MemoryError, GeneratorExit):
        raise
    except Warning as warning:
        if "Length of header" not in str(warning):
            raise
        raise InputError(
            f"{path} cannot be read {expected}: its first line names fewer columns than follow"
        ) from warning
    except UnicodeDecodeError as error:
        hint = "--encoding says which one it has, such as cp1252"
        raise InputError(f"{path} cannot be read {expected} ({brief(error)}): {hint}") from error
    except Exception as error:
        # A damaged file fails in many ways: in pandas, Arrow, codecs and decompression.
        raise InputError(f"{path} cannot be read {expected} ({brief(error)})") from error


def _import(module: str, what: str = "tables", extra: str = "table"):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        hint = f'pip install "gpumlp[{extra}]" ({error})'
        raise InputError(f"{what} need {package}, which is missing here: {hint}") from error
