"""Convert Python values to JSON and arrays, for files, and back.

Numbers, strings, None and lists stand as they are; anything else is an object with one key that
says what it is: {"tuple": [...]}, {"array": name}, {"activation": {...}}, ....  What only its maker
knows, such as a function, is stored by name, and `Reader` finds it among the user's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gpumlp.functions import activation, loss, optimizer, schedule
from gpumlp.io import named
from gpumlp.io.errors import FileError
from gpumlp.io.file_schema import FUNCTION, OPTIMIZERS, SCHEDULE
from gpumlp.training.callback import Callback, EarlyStopping
from gpumlp.utils.schema import anything, check

# Dtypes that safetensors has; arrays of others are written as bytes.
NATIVE = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()

# The arguments of a `Checkpoint`.
CHECKPOINT = ("folder_or_path", "every_epochs", "every_minutes", "keep")

AS_BYTES = "USMmcf"  # the kinds of arrays that are written as bytes

LEFT_OUT = object()  # stands for a value that `Reader` leaves out

# NumPy's bit generators: the entry with their place in a buffer, and the buffer's length.
BITS = {
    "MT19937": ("pos", 624),
    "PCG64": ("", 0),
    "PCG64DXSM": ("", 0),
    "Philox": ("buffer_pos", 4),
    "SFC64": ("", 0),
}


class Writer:
    """Converts values to what JSON can hold; their arrays are collected in `arrays`, by name."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}
        self._custom: dict[str, Any] = {}

    def write(self, value, name: str) -> Any:
        """Convert a value; name: the prefix of the names of its arrays."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, list):
            return self._items(value, name)
        if isinstance(value, tuple):
            return {"tuple": self._items(value, name)}
        if isinstance(value, dict):
            keys = self._items(value, f"{name}.keys")
            values = [self.write(v, f"{name}.{k}") for k, v in value.items()]
            return {"dict": [keys, values]}
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), name)}
        if isinstance(value, np.dtype) or value in (float, np.float32, np.float64):
            return {"dtype": np.dtype(value).name}
        if isinstance(value, np.random.RandomState | np.random.Generator):
            return self._random(value, name)
        return self._object(value, name)

    def _items(self, values, name: str) -> list:
        return [self.write(value, f"{name}.{i}") for i, value in enumerate(values)]

    def _array(self, value: np.ndarray, name: str) -> dict:
        if value.dtype == object:
            return {"objects": [list(value.shape), self._items(value.ravel(), name)]}
        while name in self.arrays:  # keys of a dictionary that are written alike
            name += "'"
        if value.dtype.name in NATIVE:
            self.arrays[name] = value.astype(value.dtype.newbyteorder("="), copy=False)
            return {"array": name}
        if value.dtype.kind not in AS_BYTES:
            raise TypeError(f"{name} has dtype {value.dtype}, which a file cannot hold")
        self.arrays[name] = np.frombuffer(value.tobytes(), np.uint8)
        return {"bytes": [name, value.dtype.str, list(value.shape)]}

    def _random(self, value, name: str) -> dict:
        if isinstance(value, np.random.Generator):
            return {"generator": self.write(value.bit_generator.state, name)}
        state = value.get_state(legacy=False)
        kind = "random" if state["bit_generator"] == "MT19937" else "random_of_bits"
        return {kind: self.write(state, name)}

    def _object(self, value, name: str) -> dict:
        if isinstance(value, activation.Activation) and value.built_in:
            return {"activation": named.function_state(value)}
        if isinstance(value, loss.Loss) and value.built_in:
            return {"loss": named.function_state(value)}
        if type(value) in schedule.schedules.values():
            return {"schedule": named.schedule_state(value)}
        if isinstance(value, optimizer.Optimizer):
            return {"optimizer": [type(value).__name__, value.state()]}
        if "_file_arguments" in vars(type(value)):
            arguments = {key: getattr(value, key) for key in value._file_arguments}
            arguments = {key: self.write(v, f"{name}.{key}") for key, v in arguments.items()}
            return {"callback": [type(value).__name__, arguments]}
        key = _name(value)
        if self._custom.setdefault(key, value) is not value:
            raise ValueError(
                f"{name}: there are two objects of your own named {key!r}, which `load` could not "
                "tell apart; give them names of their own"
            )
        return {"own": [key, name]}


def _bits(state: dict[str, Any]) -> np.random.BitGenerator:
    """Make a bit generator in that state; raises ValueError for a state that is none."""
    if state["bit_generator"] not in BITS:
        raise ValueError(f"{state['bit_generator']!r} is no bit generator of NumPy")
    # NumPy reads wherever these point to.
    place, end = BITS[state["bit_generator"]]
    at = (state["state"] if place == "pos" else state).get(place, 0)
    if type(at) is not int or not 0 <= at <= end:
        raise ValueError(f"the generator's {place} is {at!r}, not in 0 .. {end}")
    bits = getattr(np.random, state["bit_generator"])()
    try:
        bits.state = state
    except OverflowError as error:
        raise ValueError(f"the generator's state is none: {error}") from error
    return bits


def _name(value) -> str:
    """The name of a user's own object: its own, or its class's."""
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else type(value).__name__


class Reader:
    """Reads the values that a `Writer` has written.

    custom: the user's own objects, by name.
    make_checkpoint: makes a `Checkpoint` of the arguments that were written; None: it is left out.
    Each array is read once, as it was written.

    Raises FileError for what is not in custom, and KeyError, TypeError, ValueError or IndexError
    for what no Writer wrote.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        custom: dict[str, Any],
        make_checkpoint: Callable[[dict[str, Any]], Callback] | None = None,
    ):
        self._arrays, self._custom = dict(arrays), custom
        self._callbacks = {
            "EarlyStopping": (EarlyStopping._file_arguments, _early_stopping),
            "Checkpoint": (CHECKPOINT, make_checkpoint or _leave_out),
        }

    def read(self, value) -> Any:
        if isinstance(value, list):
            items = [self.read(item) for item in value]
            return [item for item in items if item is not LEFT_OUT]
        if not isinstance(value, dict):
            return value
        read = getattr(self, f"_read_{next(iter(value), None)}", None)
        if len(value) != 1 or read is None:
            raise ValueError(f"{list(value)} is no kind of value")
        return read(*value.values())

    def _read_tuple(self, content):
        return tuple(self.read(content))

    def _read_dict(self, content):
        keys, values = content
        return dict(zip(self.read(keys), self.read(values), strict=True))

    def _read_array(self, name):
        return self._arrays.pop(name).copy()

    def _read_bytes(self, content):
        name, dtype, shape = content
        check(dtype, str, "a dtype")
        if np.dtype(dtype).kind not in AS_BYTES:
            raise ValueError(f"an array of dtype {dtype} is not written as bytes")
        return np.frombuffer(self._arrays.pop(name), np.dtype(dtype)).reshape(shape).copy()

    def _read_objects(self, content):
        shape, items = content
        array = np.empty(len(items), object)
        for i, item in enumerate(items):
            array[i] = self.read(item)
        return array.reshape(shape)

    def _read_scalar(self, content):
        return self.read(content).reshape(())[()]  # some were written as arrays (1,)

    def _read_dtype(self, name):
        return np.dtype(name)

    def _read_random(self, content):
        state = self.read(content)
        random = np.random.RandomState(_bits(state))
        random.set_state(state)
        return random

    def _read_generator(self, content):
        return np.random.Generator(_bits(self.read(content)))

    _read_random_of_bits = _read_random

    def _read_activation(self, state):
        check(state, FUNCTION, "an activation")
        return named.find(activation.activations, self._custom, state, "activation")

    def _read_loss(self, state):
        check(state, FUNCTION, "a loss")
        return named.find(loss.losses, self._custom, state, "loss")

    def _read_schedule(self, state):
        check(state, SCHEDULE, "a schedule")
        return named.make_schedule(state, self._custom)

    def _read_optimizer(self, content):
        name, numbers = content
        check(numbers, OPTIMIZERS[name], name)
        return optimizer.optimizers[name](**numbers)

    def _read_callback(self, content):
        name, arguments = content
        stored, make = self._callbacks[name]
        arguments = {key: self.read(value) for key, value in arguments.items()}
        check(arguments, dict.fromkeys(stored, anything), name)
        return make(arguments)

    def _read_own(self, content):
        key, where = content
        if key not in self._custom:
            raise FileError(
                f"the file uses your own {key!r} ({where}): load(..., custom={{{key!r}: ...}})"
            )
        return self._custom[key]


def _early_stopping(arguments: dict[str, Any]) -> EarlyStopping:
    return EarlyStopping(**arguments)


def _leave_out(arguments: dict[str, Any]) -> Any:
    """Leave out a Checkpoint and warn: where it writes is the user's choice, not a file's."""
    warnings.warn(
        f"the file's Checkpoint({arguments['folder_or_path']!r}) is left out: give the estimator's "
        "parameter `callbacks` anew, or go on by gpumlp.resume",
        RuntimeWarning,
        stacklevel=2,
    )
    return LEFT_OUT
