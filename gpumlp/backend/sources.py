"""The CUDA programs: texts of kernels/ put together for one activation, loss or type of data.

A program is one text without #include, so that CuPy's cache on disk, keyed by the text, sees all.
"""

from __future__ import annotations

import functools
from pathlib import Path

from gpumlp.activation import Activation, activations
from gpumlp.loss import Form, losses, pair
from gpumlp.optimizer import HYPERS

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


@functools.cache
def text(name: str) -> str:
    """A file of kernels/, in the installed package or, for an editable install, beside it."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "kernels", package.parent / "kernels"):
        if (folder / name).is_file():
            return f'#line 1 "{name}"\n' + (folder / name).read_text()
    raise FileNotFoundError(f"kernels/{name} was not installed with gpumlp; install it again")


def _program(dtype: str, definitions: list[str], *names: str) -> str:
    head = [f"#define Real {REAL[dtype]}", text("bf16.cuh"), text("common.cuh"), *definitions]
    return "\n".join([*head, *(text(name) for name in names)])


def _struct(name: str, functions: dict[str, tuple[str, str]]) -> str:
    """A struct of one-line device functions: name -> (parameters, expression)."""
    lines = [
        f"    static __device__ Real {f}({parameters}) {{ return Real({expression}); }}"
        for f, (parameters, expression) in functions.items()
    ]
    return "\n".join([f"struct {name} {{", *lines, "};"])


def flag(name: str, value: bool) -> str:
    return f"constexpr bool {name} = {str(value).lower()};"


def _stored(name: str, dtype: str | None) -> str:
    """The type of arrays that may be in bfloat16; they are in Real otherwise."""
    return f"typedef {'Bf16' if dtype == BF16 else 'Real'} {name};"


def layer(dtype: str, f: Activation, stored: str | None = None, delta: str | None = None) -> str:
    """Kernels `activate` and `backprop` of one activation; `stored` is the dtype of z and n."""
    if f.cuda is None:
        raise ValueError(
            f"activation {f.name!r} has no CUDA side: give cuda=(f, f') with an expression in "
            "z, p[i] and one in z, n, p[i], or use device='cpu'"
        )
    definitions = [text("philox.cuh"), text("activations.cuh")]
    name = f.cuda
    if not isinstance(name, str):
        name = "Custom"
        arguments = ("Real z, const Real* p", "Real z, Real n, const Real* p")
        functions = dict(zip(("f", "df"), zip(arguments, f.cuda, strict=True), strict=True))
        definitions.append(_struct(name, functions))
    definitions += [
        _stored("Stored", stored),
        _stored("Delta", delta),
        f"typedef {name} Activation;",
        *traits(f),
    ]
    return _program(dtype, definitions, "forward.cu", "backward.cu")


def traits(f: Activation) -> list[str]:
    """What the loops around f and f' need to know of it."""
    return [
        flag("KEEPS_Z", f.df_from == "z"),
        flag("LEARNED", f.learned),
        flag("RANDOM", f.random),
        flag("IDENTITY", f.name == "identity" and f.built_in),
    ]


def rows(dtype: str) -> str:
    """Kernel `activate_rows`: softmax and log_softmax."""
    return _program(dtype, [], "rows.cu")


def loss(dtype: str, form: Form, rows: bool, log_u: bool, delta: str | None = None) -> str:
    """Kernel `loss` of one form."""
    if form.cuda is None:
        raise ValueError(
            "this loss has no CUDA side: give its form cuda=(l, dl), two expressions in u, y and "
            "p[i], or use device='cpu'"
        )
    definitions = [text("losses.cuh")]
    name = form.cuda
    if not isinstance(name, str):
        name = "Custom"
        functions = {
            f: ("Real u, Real y, const Real* p", expression)
            for f, expression in zip(("l", "dl"), form.cuda, strict=True)
        }
        definitions.append(_struct(name, functions))
    definitions += [f"typedef {name} Form;", flag("ROWS", rows), flag("LOG_U", log_u)]
    return _program(dtype, [*definitions, _stored("Delta", delta)], "losses.cu")


def update(dtype: str) -> str:
    """Kernels `advance` and `update_*`."""
    return _program(dtype, [columns(), text("laws.cuh")], "update.cu")


def columns() -> str:
    """The numbers of the columns of the hyperparameters and of the scalars."""
    names = (*HYPERS, "HYPERS"), (*SCALARS, "SCALARS")
    return "\n".join(f"enum {{ {', '.join(each)} }};" for each in names)


def gather(dtype: str, source: str, stored: str | None = None) -> str:
    """Kernel `gather` from data of one type into x of the dtype `stored`."""
    definitions = [f"typedef {SOURCE[source]} Source;", _stored("Stored", stored)]
    return _program(dtype, definitions, "gather.cu")


def narrow() -> str:
    """Kernel `narrow`: bfloat16 copies of float32 arrays."""
    return _program("float32", [], "narrow.cu")


def tally(dtype: str) -> str:
    """Kernel `tally`."""
    return _program(dtype, [], "tally.cu")


def shuffle(dtype: str) -> str:
    """Kernel `shuffle_keys`."""
    return _program(dtype, [text("philox.cuh")], "shuffle.cu")


def programs(dtype: str):
    """(label, text) of every program of that dtype, for the tools that prove them all."""
    mixed = dtype == "float32"  # some arrays may be in bfloat16
    for f in dict.fromkeys(activations[name].name for name in activations):
        if not activations[f].rows:
            yield f"layer-{f}", layer(dtype, activations[f])
            if mixed:
                yield f"layer-{f}-bf16", layer(dtype, activations[f], BF16, BF16)
                yield f"layer-{f}-bf16-delta", layer(dtype, activations[f], None, BF16)
    forms = {}
    for each in losses.values():
        for output in each.outputs or activations:
            form, _, is_rows, log_u = pair(each, activations[output])
            variable = ("log-p-" if log_u else "p-") if is_rows else ""
            label = f"loss-{variable}{form.cuda}"
            forms[label] = loss(dtype, form, is_rows, log_u)
            if mixed:
                forms[f"{label}-bf16"] = loss(dtype, form, is_rows, log_u, BF16)
    yield from forms.items()
    yield "rows", rows(dtype)
    yield "update", update(dtype)
    yield "tally", tally(dtype)
    yield "shuffle", shuffle(dtype)
    for source in SOURCE:
        yield f"gather-{source}", gather(dtype, source)
        if mixed:
            yield f"gather-{source}-bf16", gather(dtype, source, BF16)
    if mixed:
        yield "narrow", narrow()
