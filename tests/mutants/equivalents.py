"""Changes that no test can notice, each with the reason.

A row is found by the file and by the text of the line, before and after: it outlives moves.  ANY in
the place of the line after stands for every change of that line.
"""

from typing import NamedTuple

ANY = "…"


class Equivalent(NamedTuple):
    file: str
    before: str
    after: str
    reason: str


PADDING = "constants that no form reads: there is room for two"
INPUT = "an input of the self-check, for which other numbers do"

EQUIVALENTS = [
    Equivalent(
        "gpumlp/model/objective.py",
        "constants = np.array([[*self.loss.p, 0.0, 0.0]], dtype=net.dtype)",
        "constants = np.array([[*self.loss.p, 0.0, 1.0]], dtype=net.dtype)",
        PADDING,
    ),
    Equivalent(
        "gpumlp/backend/selfcheck/layer_cases.py",
        "w_sum, p = side.send(w.sum(axis=1)), side.send([[*of.p, 0.0, 0.0]])",
        "w_sum, p = side.send(w.sum(axis=1)), side.send([[*of.p, 0.0, 1.0]])",
        PADDING,
    ),
    Equivalent(
        "gpumlp/backend/selfcheck/layer_cases.py",
        'options = {"alpha": 0.5, "beta": -2.0, "ta": True}',
        ANY,
        INPUT,
    ),
    Equivalent(
        "gpumlp/backend/selfcheck/update_cases.py",
        "g[1, 700] = np.nan if step else g[1, 700]",
        "g[2, 700] = np.nan if step else g[1, 700]",
        INPUT,
    ),
    Equivalent(
        "gpumlp/backend/selfcheck/update_cases.py",
        "order[:, [5, rows - 1, rows + 3]] = -1",
        ANY,
        INPUT,
    ),
    Equivalent(
        "gpumlp/backend/selfcheck/update_cases.py",
        '"L1": [0.01, 0.01, 0.0],',
        ANY,
        INPUT,
    ),
    Equivalent(
        "gpumlp/backend/selfcheck/case.py",
        "return side.send(p * [[1], [-2], [6]] if f.learned else p)",
        "return side.send(p * [[1], [-2], [7]] if f.learned else p)",
        INPUT,
    ),
    Equivalent(
        "gpumlp/model/arrays.py",
        "if xp is not np and isinstance(array, np.ndarray):",
        "if xp is np and isinstance(array, np.ndarray):",
        "numbers are converted before they are copied to the GPU or after it: to the same",
    ),
    Equivalent(
        "gpumlp/functions/activation.py",
        "lambda z, p: _where(z > 0, z, p[0] * np.expm1(z), z),",
        "lambda z, p: _where(z >= 0, z, p[0] * np.expm1(z), z),",
        "both sides are 0 at 0",
    ),
    Equivalent(
        "gpumlp/training/out_of_core.py",
        "self._turn = 0  # the transfer that was used last",
        "self._turn = 1  # the transfer that was used last",
        "the two take turns, whichever begins",
    ),
    Equivalent(
        "kernels/cpu/sequence.cpp",
        "for (Int piece = 1; piece < call.pieces; ++piece) pthread_cond_signal(&t.posted);",
        "for (Int piece = 1; piece <= call.pieces; ++piece) pthread_cond_signal(&t.posted);",
        "one thread more wakes, finds nothing to do and sleeps again",
    ),
    Equivalent(
        "kernels/cpu/gather.cpp",
        "for (Int i = 0; i < size; i += 64) "
        "__builtin_prefetch(reinterpret_cast<const char*>(row) + i);",
        ANY,
        "a prefetch changes the time alone",
    ),
    Equivalent(
        "kernels/cpu/rows.cpp",
        "const Scratch scratch(columns, 2);",
        "const Scratch scratch(columns, 3);",
        "more memory than is used",
    ),
    Equivalent(
        "gpumlp/estimators/member_task.py",
        "return dict(zip(GROUPS, draw(self.spec.sizes, self._follows, rng), strict=True))",
        "return dict(zip(GROUPS, draw(self.spec.sizes, self._follows, rng), strict=False))",
        "both are pairs, whatever is drawn",
    ),
]


def reason(file: str, before: str, after: str) -> str | None:
    """Why the change makes no difference; None if it does."""
    for each in EQUIVALENTS:
        if (each.file, each.before) == (file, before) and each.after in (after, ANY):
            return each.reason
    return None
