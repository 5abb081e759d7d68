"""From a table as it is to a network's inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpumlp.estimators.tabular import preparation_state
from gpumlp.estimators.tabular.column_names import check_names
from gpumlp.estimators.tabular.column_values import CATEGORY, Place
from gpumlp.estimators.tabular.encoders import (
    PiecewiseLinearEncoder,
    RobustSmoothScaler,
    bin_count,
    piecewise_names,
    write_piecewise,
    write_scaled,
)
from gpumlp.estimators.tabular.table_columns import TableColumn, fit_columns
from gpumlp.estimators.tabular.table_reader import TableReader
from gpumlp.utils import checks

SAMPLE, SEED = 100_000, 0  # rows by which medians, scales and edges are found, where there are more
CHUNK = 1 << 19  # numbers of a table that are prepared at once, if those are MIN_ROWS rows
MIN_ROWS = 1024

# Of the piecewise linear encoding: up to FEW_NUMBERS columns of numbers and dates, bins are those
# of few or of many rows.
FEW_NUMBERS, FEW_ROWS = 20, 5_000
FEW_ROWS_BINS, MANY_ROWS_BINS, MANY_NUMBERS_BINS = 8, 24, 4
MAX_DISTINCT = 32


class Preparation:
    """What makes a network's inputs, float32 (R, D), of the columns of a table.

    A number, a time span (in seconds) or a part of a date is imputed with its median, scaled as
    RobustSmoothScaler does, and encoded as PiecewiseLinearEncoder does; where it was missing in
    fit, one more input is 1 where it is missing.  A category of two levels is -1 or 1, one of more
    has an input for each.  Levels are told apart as texts, 3 and 3.0 are one; missing values are a
    level if there were some in fit.  Of more than 100 levels the 99 most frequent are told apart,
    and none of fewer than 10 rows and than 1 / 2000 of them; the others are one level, of which are
    unknown ones, too.  Where there is no such level, unknown ones give 0s.

    None, NaN, NaT, NA, the empty text and infinity are missing values.  Dates with a time zone are
    taken in UTC.  Columns that are constant or empty have no inputs, nor have texts (unless they
    are declared as a category) of which over 90 % differ, from 20 rows on.

    Later, numbers, text that spells one, and time spans are numbers to a column of numbers; text in
    ISO 8601 is a date to one of dates; everything is a category to one of categories.

    These are RobustSmoothScaler and PiecewiseLinearEncoder one beside the other, and no
    ColumnTransformer: its parts would be fitted on made-up rows to come from a file, and it would
    hold each block of inputs twice, in float64.

    The inputs come in four blocks, in each the columns in order:

    1. scaled numbers (n)
    2. missing indicators, of the n numbers those that are `indicated`
    3. piecewise linear encodings
    4. categories

    Attributes
    ----------
    columns : list of TableColumn
        All columns of the table: label, kind, why they were dropped, levels, parts.
    names : list of str
        Of the inputs.
    number_names : list of str
        Of the n numbers: columns, and parts of dates.
    medians, center, scale : ndarray of shape (n,)
        Of the numbers: what takes the place of a missing one, and RobustSmoothScaler's.
    indicated : ndarray of shape (n,), bool
        Which numbers have a missing indicator; of a date the first part only.
    edges : list of n arrays
        PiecewiseLinearEncoder's.
    n_features_in_ : int
        How many columns the table has.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if they have names that are text.
    owner : str
        What a message calls that which was fitted; may be set.
    """

    columns: list[TableColumn]
    medians: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    edges: list[np.ndarray]
    n_features_in_: int
    feature_names_in_: np.ndarray
    owner: str = "this model"

    def fit(
        self, X: Any, categorical_features: Any = "from_dtype", bins: Any = "auto"
    ) -> Preparation:
        """Look at a table.

        Beyond 100,000 rows, medians, scales and edges are those of a random sample of so many, the
        same for each fit, and of the least and the greatest number of each column.

        Parameters
        ----------
        X : DataFrame of pandas or polars, pyarrow.Table, array or list of lists, of shape (R, C)
            The table; columns of an array of objects or of texts are looked at one by one.
        categorical_features : "from_dtype", None, or list, default="from_dtype"
            Text is a category in any case.  "from_dtype": so is what has a categorical dtype; None:
            no numbers are; a mask, positions or names: those columns are.
        bins : "auto", int or None, default="auto"
            Of the piecewise linear encoding.  "auto": for up to 20 columns of numbers and dates 8,
            from 5,000 rows on 24, and an edge at each value of a column of up to 32; for more
            columns 4.  None: no such encoding.

        Returns
        -------
        self : Preparation

        Raises
        ------
        ValueError
            If there is no row, no column with features, or a name twice.
        TypeError
            If a column holds bytes, complex numbers, lists or the like.
        """
        if bins is not None and not (isinstance(bins, str) and bins == "auto"):
            bins = checks.number(bins, 'bins ("auto", None or a number)', checks.COUNT)
        table = TableReader(X)
        rows = None
        if table.rows > SAMPLE:
            choice = np.random.default_rng(SEED).choice(table.rows, SAMPLE, replace=False)
            rows = np.sort(choice)
        self.columns, numbers = fit_columns(table, categorical_features, rows)
        self._set_names(table.names, len(table.labels))
        n = numbers.shape[1]
        self.medians, self.center, self.scale, self.edges = (*np.zeros((3, n)), [np.empty(0)] * n)
        if n:
            self.medians = np.nanmedian(numbers, axis=0)
            numbers = np.where(np.isnan(numbers), self.medians, numbers)
            scaler = RobustSmoothScaler().fit(numbers)
            self.center, self.scale = scaler.center_, scaler.scale_
            encoder = self._encoder(bins, table.rows)
            self.edges = encoder.fit(numbers).edges_ if encoder else self.edges
        return self

    def _set_names(self, names: list[str] | None, count: int) -> None:
        self.n_features_in_ = count
        if names is None:
            vars(self).pop("feature_names_in_", None)
        else:
            self.feature_names_in_ = np.array(names, dtype=object)

    def _encoder(self, bins: Any, rows: int) -> PiecewiseLinearEncoder | None:
        """bins: as fit takes it."""
        if bins is None:
            return None
        if bins != "auto":
            return PiecewiseLinearEncoder(bins, MAX_DISTINCT)
        if (
            sum(column.kind != CATEGORY and not column.dropped for column in self.columns)
            > FEW_NUMBERS
        ):
            return PiecewiseLinearEncoder(MANY_NUMBERS_BINS, 0)
        few = rows < FEW_ROWS
        return PiecewiseLinearEncoder(FEW_ROWS_BINS if few else MANY_ROWS_BINS, MAX_DISTINCT)

    # ------------------------------------------------------------ what there is
    @property
    def dropped(self) -> dict[str | int, str]:
        """Why columns have no inputs, by their labels: "constant", "empty" or "distinct"."""
        return {column.label: column.dropped for column in self.columns if column.dropped}

    @property
    def number_columns(self) -> list[tuple[int, TableColumn]]:
        """Positions and columns of those numbers and dates that have inputs."""
        kept = enumerate(self.columns)
        return [(j, column) for j, column in kept if not column.dropped and column.kind != CATEGORY]

    @property
    def category_columns(self) -> list[tuple[int, TableColumn]]:
        """Positions and columns of those categories that have inputs."""
        kept = enumerate(self.columns)
        return [(j, column) for j, column in kept if not column.dropped and column.kind == CATEGORY]

    @property
    def number_names(self) -> list[str]:
        return [name for _, column in self.number_columns for name in column.names]

    @property
    def indicated(self) -> np.ndarray:
        flags = [
            column.missing and i == 0
            for _, column in self.number_columns
            for i in range(len(column.names))
        ]
        return np.array(flags, dtype=bool)

    @property
    def names(self) -> list[str]:
        numbers = self.number_names
        missing = [f"{column.name}_missing" for _, column in self.number_columns if column.missing]
        categories = [name for _, column in self.category_columns for name in column.input_names]
        return [*numbers, *missing, *piecewise_names(numbers, self.edges), *categories]

    # ------------------------------------------------------------ rows
    def transform(self, X: Any) -> np.ndarray:
        """Make inputs of a table's rows, a chunk at a time.

        Parameters
        ----------
        X : table of shape (R, C)
            With the columns of fit.

        Returns
        -------
        ndarray of shape (R, D), float32

        Raises
        ------
        ValueError
            If the columns are others, or one of numbers or dates holds something else.
        """
        table = self._read(X)
        out = np.empty((table.rows, len(self.names)), np.float32)
        for rows in _slices(table):
            self._write(table, rows, out[rows])
        return out

    def chunks(self, X: Any) -> Iterator[np.ndarray]:
        """The inputs of a table's rows, as `transform` makes them, some rows at a time."""
        table, width = self._read(X), len(self.names)
        for rows in _slices(table):
            out = np.empty((rows.stop - rows.start, width), np.float32)
            self._write(table, rows, out)
            yield out

    def _read(self, X: Any) -> TableReader:
        """A table whose columns are those of fit."""
        table = TableReader(X)
        names = getattr(self, "feature_names_in_", None)
        names = None if names is None else list(names)
        check_names(table, names, self.n_features_in_, self.owner)
        return table

    def _write(self, table: TableReader, rows: slice, out: np.ndarray) -> None:
        """out <- the inputs of a chunk of rows."""
        n, indicated = len(self.medians), self.indicated
        numbers = np.empty((len(out), n))
        end = 0
        for j, column in self.number_columns:
            start, end = end, end + len(column.names)
            place = Place(table.labels[j], rows.start)
            numbers[:, start:end] = column.encode(table.column(j, rows), place)
        missing = np.isnan(numbers)
        numbers = np.where(missing, self.medians, numbers)

        write_scaled(numbers, self.center, self.scale, out[:, :n])
        end = n + int(indicated.sum())
        out[:, n:end] = missing[:, indicated]
        start, end = end, end + sum(map(bin_count, self.edges))
        write_piecewise(numbers, self.edges, out[:, start:end])
        for j, column in self.category_columns:
            start, end = end, end + len(column.input_names)
            codes = column.encode(table.column(j, rows, exact=True), Place(table.labels[j]))
            write_category(codes[:, 0], out[:, start:end])

    # ------------------------------------------------------------ state
    def state(self) -> dict[str, Any]:
        """All that transform needs, as JSON values and float64 arrays."""
        named = hasattr(self, "feature_names_in_")
        arrays = {"medians": self.medians, "center": self.center, "scale": self.scale}
        return preparation_state.describe(named, self.columns, arrays, self.edges)

    @classmethod
    def from_state(cls, state: Any) -> Preparation:
        """The preparation whose state() this is, which transforms equally to the bit.

        Raises
        ------
        ValueError
            If it is no such state.
        """
        self = cls()
        named, self.columns, arrays, self.edges = preparation_state.restore(state)
        self.medians, self.center, self.scale = arrays.values()
        labels = [str(column.label) for column in self.columns]
        self._set_names(labels if named else None, len(labels))
        return self


def _slices(table: TableReader) -> Iterator[slice]:
    """Of the rows that are prepared at once."""
    size = max(MIN_ROWS, CHUNK // table.columns)
    for start in range(0, table.rows, size):
        yield slice(start, min(start + size, table.rows))


def write_category(codes: np.ndarray, out: np.ndarray) -> None:
    """out <- -1 or 1 for codes 0 and 1 if it is one column, else one-hot; 0 for NaN."""
    out[...] = 0
    rows = np.flatnonzero(~np.isnan(codes))
    known = codes[rows].astype(np.intp)
    if out.shape[1] == 1:
        out[rows, 0] = 2 * known - 1
    else:
        out[rows, known] = 1
