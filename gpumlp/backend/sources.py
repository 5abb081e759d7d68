"""The texts of kernels/, which programs for GPUs and CPUs are made of."""

from __future__ import annotations

import functools
from pathlib import Path

from gpumlp.functions.activation import Activation
from gpumlp.functions.optimizer_base import HYPERS

REAL = {"float32": "float", "float64": "double"}
BF16 = "uint16"  # the dtype of arrays that hold the bits of bfloat16 numbers
SOURCE = {
    "uint8": "unsigned char",
    "int8": "signed char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned",
    "int64": "long long",
    "float32": "float",
    "float64": "double",
}
SCALARS = ("GO", "CLIP_SCALE", "RATE", "DECAY_SCALE")

# kernels/ in the installed package or, for an editable install, beside it.
PACKAGE = Path(__file__).resolve().parent.parent
FOLDERS = PACKAGE / "kernels", PACKAGE.parent / "kernels"


@functools.cache
def _paths() -> dict[str, Path]:
    """The files of kernels/ by name; no two have the same."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
    return {path.name: path for path in sorted(folder.glob("*/*.*"))}


def names() -> list[str]:
    """The names of all files that the programs for GPUs are made of."""
    return [name for name, path in _paths().items() if path.parent.name != "cpu"]


@functools.cache
def text(name: str) -> str:
    """The text of a file of kernels/, in whichever folder it lies."""
    if name not in _paths():
        raise FileNotFoundError(f"kernels/{name} was not installed with gpumlp; install it again")
    return f'#line 1 "{name}"\n' + _paths()[name].read_text(encoding="utf-8")


def flag(name: str, value: bool) -> str:
    return f"constexpr bool {name} = {str(value).lower()};"


def traits(f: Activation) -> list[str]:
    """The flags of an activation that the loops around f and f' depend on."""
    return [
        flag("KEEPS_Z", f.df_from == "z"),
        flag("LEARNED", f.learned),
        flag("RANDOM", f.random),
        flag("IDENTITY", f.name == "identity" and f.built_in),
    ]


def columns() -> str:
    """The enumerations of the columns of hyperparameters and scalars."""
    names = (*HYPERS, "HYPERS"), (*SCALARS, "SCALARS")
    return "\n".join(f"enum {{ {', '.join(enumerators)} }};" for enumerators in names)


def update_rule(family: str, used: tuple[bool, ...]) -> list[str]:
    """The definitions of an optimiser: its struct `Rule`, and which state buffers are in use."""
    names = [f"state_{i}" for i in range(max(1, len(used)))]
    return [
        columns(),
        f"constexpr int STATE_BUFFERS = {len(names)};",
        f"constexpr unsigned USED = {sum(1 << i for i, is_used in enumerate(used) if is_used)};",
        f"#define STATE_PARAMETERS {', '.join(f'Real* {name}' for name in names)}",
        f"#define STATE_ARGUMENTS {', '.join(names)}",
        *map(text, ("step.cuh", "update_rule.cuh", f"{family.lower()}.cuh")),
        f"typedef {family} Rule;",
    ]
