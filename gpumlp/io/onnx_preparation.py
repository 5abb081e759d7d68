"""The preparation of tables as nodes of an ONNX graph: from raw columns to a network's features.

Each column is an input (B, 1).  Numbers are double; dates int64, nanoseconds since 1970; categories
text.  The arithmetic is that of `Preparation.transform`, in float64.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from gpumlp.estimators.tabular.column_values import CATEGORY, DATE
from gpumlp.estimators.tabular.encoders import LIMIT, bin_count
from gpumlp.estimators.tabular.table_columns import ELAPSED, TableColumn
from gpumlp.estimators.tabular.table_preparation import Preparation
from gpumlp.io.onnx_functions import Graph
from gpumlp.io.onnx_network import Tensor

NO_DATE = np.iinfo(np.int64).min  # NumPy's NaT
A_DAY = 86_400 * 10**6  # microseconds
FARTHEST = 1e100  # its square is a double; beyond it a scaled number is the limit


def inputs_of(preparation: Preparation) -> list[Tensor]:
    """The columns that have features, in their order; no two of one name."""
    inputs: dict[str, Tensor] = {}
    for j, column in enumerate(preparation.columns):
        if column.dropped:
            continue
        name = column.name or f"x{j}"  # to ONNX "" is no name
        while name in inputs:
            name += "_"
        kind = {CATEGORY: object, DATE: np.int64}.get(column.kind, np.float64)
        inputs[name] = Tensor(name, kind, ("B", 1))
    return list(inputs.values())


def add_preparation(g: Graph, preparation: Preparation, names: list[str]) -> str:
    """x (B, D) in float32; names: of the inputs.  The graph's dtype is float64."""
    kept = [column for column in preparation.columns if not column.dropped]
    pairs = list(zip(kept, names, strict=True))
    numbers = [(column, name) for column, name in pairs if column.kind != CATEGORY]
    categories = [(column, name) for column, name in pairs if column.kind == CATEGORY]
    blocks = []
    if numbers:
        g.enter("number_")
        blocks += _numbers(g, preparation, numbers)
    if categories:
        g.enter("category_")
        blocks.append(_categories(g, categories))
    g.enter("prepared_")
    return g.op("Concat", *blocks, axis=1)


# ---------------------------------------------------------------- numbers and dates
def _numbers(
    g: Graph, preparation: Preparation, columns: list[tuple[TableColumn, str]]
) -> list[str]:
    """Scaled numbers, missing indicators and piecewise linear encodings, in float32."""
    values = [_dates(g, name, each.parts) if each.kind == DATE else name for each, name in columns]
    x = g.op("Concat", *values, axis=1)
    missing = g.op("Or", g.op("IsNaN", x), g.op("IsInf", x))
    x = g.op("Where", missing, preparation.medians, x)
    blocks = [_scaled(g, x, preparation.center, preparation.scale)]
    indicated = np.flatnonzero(preparation.indicated)
    if len(indicated):
        blocks.append(g.op("Gather", g.cast(missing, np.float32), indicated, axis=1))
    if any(map(bin_count, preparation.edges)):
        blocks.append(_piecewise(g, x, preparation.edges))
    return blocks


def _scaled(g: Graph, x: str, center: np.ndarray, scale: np.ndarray) -> str:
    """s / sqrt(1 + (s / 3)^2), s = (x - center) / scale; 0 where scale is 0."""
    varies = scale > 0
    s = g.op("Div", g.op("Sub", x, center), np.where(varies, scale, 1.0))
    s = g.op("Mul", g.op("Clip", s, -FARTHEST, FARTHEST), varies.astype(np.float64))
    u = g.op("Div", s, LIMIT)
    length = g.op("Sqrt", g.op("Add", g.op("Mul", u, u), 1.0))
    return g.cast(g.op("Div", s, length), np.float32)


def _piecewise(g: Graph, x: str, edges: list[np.ndarray]) -> str:
    """(x - e_t) / (e_{t+1} - e_t), clipped to [0, 1], of the first bin to [-1, 1], of the last to
    [0, 2]."""
    encoded = [(j, e) for j, e in enumerate(edges) if bin_count(e)]
    source = np.concatenate([np.full(bin_count(e), j) for j, e in encoded])
    lower = np.concatenate([e[:-1] for _, e in encoded])
    with np.errstate(over="ignore"):
        width = np.concatenate([np.diff(e) for _, e in encoded])
    ends = np.cumsum([bin_count(e) for _, e in encoded])
    low, high = np.zeros(len(source)), np.ones(len(source))
    low[[0, *ends[:-1]]], high[ends - 1] = -1, 2
    p = g.op("Div", g.op("Sub", g.op("Gather", x, source, axis=1), lower), width)
    p = g.op("Where", g.op("IsNaN", p), 0.0, p)  # infinity by infinity
    return g.cast(g.op("Max", g.op("Min", p, high), low), np.float32)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A tensor of int64 in a formula: // and % are Python's, comparisons give 0 and 1."""

    g: Graph
    name: str

    def _(self, kind: str, other: Whole | int) -> Whole:
        operand = other.name if isinstance(other, Whole) else np.array(other, np.int64)
        return Whole(self.g, self.g.op(kind, self.name, operand))

    def __add__(self, other: Whole | int) -> Whole:
        return self._("Add", other)

    def __sub__(self, other: Whole | int) -> Whole:
        return self._("Sub", other)

    def __mul__(self, other: Whole | int) -> Whole:
        return self._("Mul", other)

    def __mod__(self, other: Whole | int) -> Whole:
        return self._("Mod", other)

    def __floordiv__(self, other: Whole | int) -> Whole:
        return (self - self % other)._("Div", other)  # without a rest ONNX rounds nothing

    def __ge__(self, other: Whole | int) -> Whole:
        return Whole(self.g, self.g.cast(self._("GreaterOrEqual", other).name, np.int64))


class Calendar:
    """The parts of dates, which are so many microseconds from the beginning of 1970; the nodes of a
    part are made when it is asked for.

    From days to year, month and day by civil_from_days of H. Hinnant, "chrono-Compatible Low-Level
    Date Algorithms", https://howardhinnant.github.io/date_algorithms.html: a year begins in March,
    and an era has 400 years.
    """

    def __init__(self, microseconds: Whole):
        self.microseconds = microseconds

    @cached_property
    def elapsed(self) -> str:
        g = self.microseconds.g
        return g.op("Div", g.cast(self.microseconds.name, np.float64), float(A_DAY))

    @cached_property
    def days(self) -> Whole:
        return self.microseconds // A_DAY

    @cached_property
    def seconds(self) -> Whole:
        """Of the day."""
        return self.microseconds % A_DAY // 10**6

    @cached_property
    def era(self) -> Whole:
        return (self.days + 719_468) // 146_097

    @cached_property
    def year_of_era(self) -> Whole:
        day = self.day_of_era
        return (day - day // 1460 + day // 36_524 - day // 146_096) // 365

    @cached_property
    def day_of_era(self) -> Whole:
        return (self.days + 719_468) % 146_097

    @cached_property
    def day_of_year(self) -> Whole:
        """From March on, as `month_of_year`."""
        year = self.year_of_era
        return self.day_of_era - (year * 365 + year // 4 - year // 100)

    @cached_property
    def month_of_year(self) -> Whole:
        return (self.day_of_year * 5 + 2) // 153

    @cached_property
    def year(self) -> Whole:
        return self.year_of_era + self.era * 400 + (self.month_of_year >= 10)

    @cached_property
    def month(self) -> Whole:
        return self.month_of_year + 3 - (self.month_of_year >= 10) * 12

    @cached_property
    def day(self) -> Whole:
        return self.day_of_year - (self.month_of_year * 153 + 2) // 5 + 1

    @cached_property
    def weekday(self) -> Whole:
        return (self.days + 3) % 7

    @cached_property
    def yearday(self) -> Whole:
        before = self.year - 1
        first = before * 365 + before // 4 - before // 100 + before // 400 - 719_162
        return self.days - first + 1

    @cached_property
    def hour(self) -> Whole:
        return self.seconds // 3600

    @cached_property
    def minute(self) -> Whole:
        return self.seconds // 60 % 60

    @cached_property
    def second(self) -> Whole:
        return self.seconds % 60


def _dates(g: Graph, dates: str, parts: tuple[str, ...]) -> str:
    """Parts of dates (B, parts) in double, NaN where a date is missing."""
    missing = g.op("Equal", dates, np.array(NO_DATE))
    present = Whole(g, g.op("Where", missing, np.array(0, np.int64), dates))
    present = present._("Max", 1000 - 2**63)  # // subtracts up to 999
    calendar = Calendar(present // 1000)
    columns = [
        calendar.elapsed if part == ELAPSED else g.cast(getattr(calendar, part).name, np.float64)
        for part in parts
    ]
    return g.op("Where", missing, np.nan, g.op("Concat", *columns, axis=1))


# ---------------------------------------------------------------- categories
def _categories(g: Graph, columns: list[tuple[TableColumn, str]]) -> str:
    """-1 or 1 for two codes, else one-hot; 0 for an unknown level; in float32."""
    codes = g.op("Concat", *(_codes(g, column, name) for column, name in columns), axis=1)
    source: list[int] = []
    plus: list[int] = []  # the code for which an input is 1
    minus: list[int] = []  # and -1
    for j, (column, _) in enumerate(columns):
        count = len(column.codes)
        one_hot = [] if count == 2 else list(range(count))
        plus += one_hot or [1]
        minus += [-2] * len(one_hot) or [0]
        source += [j] * (len(one_hot) or 1)
    codes = g.op("Gather", codes, np.array(source, np.int64), axis=1)
    ones, minus_ones = (
        g.cast(g.op("Equal", codes, np.array(each, np.int64)), np.float32) for each in (plus, minus)
    )
    return g.op("Sub", ones, minus_ones)


def _codes(g: Graph, column: TableColumn, texts: str) -> str:
    """The numbers of levels, int64 (B, 1), -1 for an unknown one."""
    count = len(column.levels)
    infrequent = count if column.infrequent else -1
    missing = count + column.infrequent if column.missing else -1
    return g.op(
        "LabelEncoder",
        texts,
        domain="ai.onnx.ml",
        keys_strings=[*column.levels, ""],
        values_int64s=[*range(count), missing],
        default_int64=infrequent,
    )
