"""What of CuPy the library may use: one line here is one more function.

Whatever is not named here, or written out in functions.py, raises AttributeError. Before
adding a name, look at what CuPy does there that NumPy does not; tests/backend/test_cupy_contract.py
checks that CuPy has it.
"""

import numpy as np

# cupy.NAME(operand, ..., out=None, dtype=None), and what NumPy's scalars may do to an array.
ELEMENTWISE = {
    name: getattr(np, name)
    for name in (
        "absolute add bitwise_and bitwise_or bitwise_xor divide equal exp expm1 floor_divide "
        "greater greater_equal invert isfinite isinf isnan left_shift less less_equal log log1p "
        "logical_and logical_not logical_or maximum minimum multiply negative not_equal power "
        "remainder right_shift sign sqrt square subtract tanh true_divide"
    ).split()
}
ELEMENTWISE["abs"] = np.absolute

# cupy.NAME(a, axis=None, *, dtype=None, out=None, keepdims=False), also methods of an array.
SUMS = {"sum": np.sum, "mean": np.mean, "prod": np.prod}

# The same without dtype.
EXTREMES = {"max": np.max, "min": np.min, "any": np.any, "all": np.all}

# cupy.NAME(a, axis=None, *, keepdims=False)
POSITIONS = {"argmax": np.argmax, "argmin": np.argmin}

# What CuPy takes over from NumPy as it is.
CONSTANTS = {
    name: getattr(np, name)
    for name in (
        "bool_ dtype float16 float32 float64 inf int8 int16 int32 int64 integer floating intp "
        "nan newaxis pi uint8 uint16 uint32 uint64 uintp"
    ).split()
}
