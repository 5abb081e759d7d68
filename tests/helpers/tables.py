"""Tables of every kind, of columns of every kind."""

import datetime
from decimal import Decimal

import numpy as np

from tests.helpers.optional import Package

pd, pl, pa = Package("pandas"), Package("polars"), Package("pyarrow")

ROWS = 60
UTC = datetime.timezone.utc
DAY = datetime.datetime(2021, 2, 27, 22, 30, 15)
LATER = datetime.timedelta(days=31, hours=5, minutes=7, seconds=11)


def column(kind, count=ROWS):
    """Python's objects."""
    index = range(count)
    return {
        "bool": [i % 3 == 0 for i in index],
        "int": [i * i % 17 for i in index],
        "float": [i * 0.37 % 5 for i in index],
        "decimal": [Decimal(i % 7) / 4 for i in index],
        "text": ["red green blue".split()[i % 3] for i in index],
        "two texts": ["yes" if i % 4 else "no" for i in index],
        "datetime": [DAY + i * LATER for i in index],
        "date": [DAY.date() + i * datetime.timedelta(days=9) for i in index],
        "time span": [datetime.timedelta(seconds=i * 1.5) for i in index],
        "time": [datetime.time(i % 24, i % 60, 5) for i in index],
    }[kind]


KINDS = {
    **dict.fromkeys(["bool", "int", "float", "decimal", "time span", "time"], "number"),
    **dict.fromkeys(["text", "two texts"], "category"),
    **dict.fromkeys(["datetime", "date"], "date"),
}
TABLES = {
    "pandas": lambda data: pd.DataFrame(data),
    "pandas objects": lambda data: pd.DataFrame(data, dtype=object),
    "pandas nullable": lambda data: pd.DataFrame(data).convert_dtypes(),
    "pandas arrow": lambda data: pd.DataFrame(
        {name: pd.Series(values, dtype=arrow_dtype(values)) for name, values in data.items()}
    ),
    "polars": lambda data: pl.DataFrame(data),
    "pyarrow": lambda data: pa.table(data),
    "objects": lambda data: objects(data),
    "lists": lambda data: objects(data).tolist(),
}


def arrow_dtype(values):
    return pd.ArrowDtype(pa.array(values).type)


def objects(data):
    array = np.empty((len(next(iter(data.values()))), len(data)), dtype=object)
    for j, values in enumerate(data.values()):
        array[:, j] = values
    return array


def with_gaps(values, step=7):
    return [None if i % step == 0 else value for i, value in enumerate(values)]


FRAMES = {name: TABLES[name] for name in ("pandas", "polars", "pyarrow")}


def mixed(rows=101, seed=0) -> dict:
    """A column of each kind, by names."""
    rng = np.random.default_rng(seed)
    start = datetime.datetime(2023, 11, 5)
    return {
        "width": rng.normal(size=rows).tolist(),
        "height": [None if i % 5 == 2 else float(i % 11) for i in range(rows)],
        "colour": rng.choice(["red", "green", "blue"], rows).tolist(),
        "sex": rng.choice(["f", "m"], rows).tolist(),
        "city": [None if i % 9 == 4 else f"city {i % 6}" for i in range(rows)],
        "bought": [start + datetime.timedelta(hours=int(h)) for h in rng.integers(0, 9999, rows)],
        "nothing": [1] * rows,
    }
