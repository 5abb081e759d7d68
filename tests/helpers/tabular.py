"""Tables with columns of every kind, and small estimators fitted on them."""

import datetime

import numpy as np

from gpumlp import TabularClassifier, TabularRegressor
from tests.helpers.optional import Package

pd = Package("pandas")

QUICK = {"n_models": 2, "hidden_layer_sizes": (7, 5), "max_epochs": 3, "random_state": 0}
EPOCH = np.datetime64("1970-01-01", "ns")


def every_kind(rows, seed=0):
    """A frame of columns of every kind, with missing and infinite values."""
    rng = np.random.default_rng(seed)
    hidden = rng.random((rows, 4)) < 0.1
    number = rng.lognormal(size=rows) * 100
    number[hidden[:, 0]] = np.nan
    far = rng.standard_cauchy(rows) * 1e3
    far[hidden[:, 1]] = np.where(rng.random(hidden[:, 1].sum()) < 0.5, np.inf, -np.inf)
    seconds = rng.integers(-3_000_000_000, 3_000_000_000, rows)
    when = pd.Series(EPOCH + seconds.astype("timedelta64[s]"))
    when[hidden[:, 2]] = pd.NaT
    day = pd.Series(EPOCH + (rng.integers(-200, 200, rows)).astype("timedelta64[D]"))
    town = rng.choice(["Ulm", "Rom", "Ur", "Łódź", "a b"], rows).astype(object)
    town[hidden[:, 3]] = None
    return pd.DataFrame(
        {
            "number": number,
            "far": far,
            "count": rng.integers(0, 6, rows),
            "flag": rng.random(rows) < 0.4,
            "when": when,
            "day": day,
            "span": pd.to_timedelta(rng.integers(0, 10**6, rows), unit="s"),
            "at": [datetime.time(int(h), 30) for h in rng.integers(0, 24, rows)],
            "town": town,
            "sex": rng.choice(["f", "m"], rows),
            "grade": pd.Categorical(rng.choice([3.0, 1.5, 2.0], rows)),
            "rare": np.where(np.arange(rows) % 50 == 7, "seldom", rng.choice(["x", "y"], rows)),
            "text": [f"row {i}" for i in range(rows)],
            "constant": 3,
            "empty": np.nan,
        }
    )


def targets(frame):
    """Numbers that the frame says something of."""
    number = frame["count"].to_numpy() + 2.0 * frame["flag"].to_numpy()
    return number + (frame["sex"] == "f").to_numpy()


def fitted(cls, frame, y=None, **options):
    """y: by default classes of text, or numbers."""
    if y is None:
        y = targets(frame)
        if cls is TabularClassifier:
            y = np.array(["low", "middle", "high"])[np.digitize(y, [2.0, 5.0])]
    return cls(**QUICK | options).fit(frame, y)


BOTH = [TabularClassifier, TabularRegressor]
