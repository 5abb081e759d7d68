"""The columns of a table as the inputs of a network that version 0.1.0 trained on it: read only."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gpumlp.cli import cells
from gpumlp.cli.error import InputError

KINDS = {"number": cells.NUMBER, "date": cells.DATE, "text": cells.TEXT}


@dataclasses.dataclass(frozen=True)
class Columns:
    """each: [name, kind, whether missing values have an input, texts that have one], where kind is
    one of KINDS.

    A number, and a date's days since 1970, is standardised, and the mean where it is missing; a
    text is one-hot.
    """

    each: tuple[tuple[str, str, bool, list[str]], ...]

    @classmethod
    def from_metadata(cls, stored: list[dict[str, Any]]) -> Columns:
        """What is stored; KeyError, TypeError or ValueError if it is something else."""
        columns = []
        for each in stored:
            name, kind, missing, texts = (each[key] for key in ("name", "kind", "missing", "texts"))
            if not (
                isinstance(missing, bool)
                and isinstance(texts, list)
                and kind in KINDS
                and all(isinstance(word, str) for word in (name, *texts))
                and len(set(texts)) == len(texts)
            ):
                raise ValueError(f"column {name!r}")
            columns.append((name, kind, missing, texts))
        if len({name for name, *_ in columns}) < len(columns):
            raise ValueError("a column twice")
        return cls(tuple(columns))

    @property
    def kinds(self) -> dict[str, str]:
        return {name: KINDS[kind] for name, kind, *_ in self.each}

    @property
    def width(self) -> int:
        return sum(
            (len(texts) if kind == "text" else 1) + missing for _, kind, missing, texts in self.each
        )

    def inputs(self, frame, mean, deviation, dtype: str, what: str) -> np.ndarray:
        """The network's input (rows, width) for a frame of these kinds."""
        out, start = np.zeros((len(frame), self.width), dtype), 0
        for name, kind, missing, texts in self.each:
            series = frame[name]
            absent = series.isna().to_numpy()
            if kind == "text":
                words = series.astype(str).to_numpy()
                for i, text in enumerate(texts):
                    out[:, start + i] = (words == text) & ~absent
                start += len(texts)
            else:
                values = _days(series) if series.dtype.kind in "mM" else series
                values = values.to_numpy(np.float64, na_value=np.nan)
                with np.errstate(over="ignore"):
                    scaled = ((values - mean[start]) / deviation[start]).astype(dtype)
                far = np.flatnonzero(~np.isfinite(scaled) & ~absent)
                if len(far):
                    raise InputError(
                        f"row {far[0] + 1} of column {name} of {what} is too far from the training "
                        f"part's numbers for {dtype}"
                    )
                out[:, start] = np.where(absent, 0, scaled)
                start += 1
            if missing:
                out[:, start] = absent
                start += 1
        return out


def _days(series):
    """Days since 1970, or of a time span."""
    if series.dtype.kind == "M":
        if getattr(series.dt, "tz", None) is not None:
            series = series.dt.tz_convert(None)
        series = series - np.datetime64(0, "s")
    return series / np.timedelta64(1, "D")
