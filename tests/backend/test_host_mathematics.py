"""exp, log and their kin of kernels/cpu/mathematics.hpp, in vectors, against higher precision."""

import ctypes
import math

import numpy as np
import pytest

from gpumlp.backend.cpu import compiler, host_sources

pytestmark = pytest.mark.skipif(
    compiler.problem() is not None,
    reason=f"nothing can be compiled for the CPU: {compiler.problem()}",
)

NAMES = ("exp", "expm1", "tanh", "log", "log1p", "erf")
LOOP = """extern "C" void each_{name}(const Real* x, const Real* y, Real* to, Int count) {{
    for (Int i = 0; i < count; ++i) to[i] = {call};
}}"""
ULP = 3  # as mathematics.hpp says
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def call():
    """call(name, x, y=x): the compiled function of each element."""

    def call(name, x, y=None):
        text = [LOOP.format(name=each, call=f"{each}(x[i])") for each in NAMES]
        text.append(LOOP.format(name="pow", call="pow(x[i], y[i])"))
        library = compiler.library(host_sources._program(str(x.dtype), "\n".join(text)))
        to, y = np.empty_like(x), x if y is None else y
        arrays = (ctypes.c_void_p(each.ctypes.data) for each in (x, y, to))
        getattr(library, f"each_{name}")(*arrays, ctypes.c_longlong(x.size))
        return to

    return call


def reference(name, x):
    with np.errstate(all="ignore"):
        if name == "erf":
            return np.vectorize(math.erf)(x.astype(np.float64))
        return getattr(np, name)(x.astype(np.float64 if x.dtype == "float32" else np.longdouble))


def ulps(actual, expected):
    """The errors, in units of the last place of what is expected."""
    with np.errstate(all="ignore"):
        rounded = expected.astype(actual.dtype)
        errors = np.abs(actual - expected) / np.spacing(np.abs(rounded))
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    return np.where(same, 0, errors)


def arguments(dtype, seed, size=100_003):
    """Of all magnitudes, and many where functions bend."""
    rng = np.random.default_rng(seed)
    largest = np.log(np.finfo(dtype).max)
    parts = (
        rng.uniform(-1, 1, size),
        rng.normal(0, 4, size),
        rng.uniform(-1.1 * largest, 1.1 * largest, size),
        rng.choice([-1, 1], size) * np.exp(rng.uniform(-0.99 * largest, 0.99 * largest, size)),
    )
    return np.concatenate(parts).astype(dtype)


@dtypes
@pytest.mark.parametrize("name", NAMES)
def test_functions_to_the_last_places(call, name, dtype):
    x = arguments(dtype, seed=len(name))
    if name == "log":
        x = np.abs(x)
    elif name == "log1p":
        x = np.where(x < -1, -x, x)
    assert ulps(call(name, x), reference(name, x)).max() < ULP


@dtypes
@pytest.mark.parametrize("name", NAMES)
def test_infinities_nan_and_subnormal_numbers(call, name, dtype):
    least, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    ends = [-np.inf, -most, -1e30, -745, -104, -88, -1, -0.5, -1e-30, -5 * least, -least]
    x = np.array([*ends, 0.0, *(-value for value in ends), np.nan], dtype)
    assert ulps(call(name, x), reference(name, x)).max() < ULP


@dtypes
def test_powers(call, dtype):
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-20, 3, 10_007)).astype(dtype)
    y = rng.uniform(-2, 5, x.size).astype(dtype)
    wide = np.float64 if dtype == "float32" else np.longdouble
    expected = x.astype(wide) ** y.astype(wide)
    allowed = 1 if dtype == "float32" else 2 + np.abs(y * np.log(x))
    assert (ulps(call("pow", x, y), expected) < allowed).all()
    zero = np.array([0, 0, 1, 3, np.nan, 2], dtype)
    exponent = np.array([0, 2, 5, 0, 2, np.nan], dtype)
    np.testing.assert_array_equal(call("pow", zero, exponent), [1, 0, 1, 1, np.nan, np.nan])
