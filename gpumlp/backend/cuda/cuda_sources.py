"""The CUDA programs: texts of kernels/ joined for one activation, loss or type of data.

A program is one text without #include, as CuPy's cache on disk is keyed by the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpumlp.backend import sources
from gpumlp.backend.cuda import persistent_kernel as residents
from gpumlp.backend.cuda.persistent_kernel import Places, Shape
from gpumlp.backend.sources import BF16, REAL, SOURCE, columns, flag, traits
from gpumlp.functions.activation import Activation, activations
from gpumlp.functions.loss import Form, losses, pair
from gpumlp.functions.optimizer import examples


def _program(dtype: str, definitions: list[str], *names: str) -> str:
    return "\n".join(
        [
            f"#define Real {REAL[dtype]}",
            *map(sources.text, ("bf16.cuh", "common.cuh")),
            *definitions,
            *map(sources.text, names),
        ]
    )


def _struct(name: str, functions: dict[str, tuple[str, str]]) -> str:
    """A struct of one-line device functions: name -> (parameters, expression)."""
    lines = [
        f"    static __device__ Real {f}({parameters}) {{ return Real({expression}); }}"
        for f, (parameters, expression) in functions.items()
    ]
    return "\n".join([f"struct {name} {{", *lines, "};"])


def _stored(name: str, dtype: str | None) -> str:
    """The typedef of an array's elements: Bf16 for BF16, else Real."""
    return f"typedef {'Bf16' if dtype == BF16 else 'Real'} {name};"


def _activation(f: Activation, name: str) -> tuple[str, list[str]]:
    """The struct of f and f', and its definition; a user's own is defined by that name."""
    if f.cuda is None:
        raise ValueError(
            f"activation {f.name!r} has no CUDA side: give cuda=(f, f') with an expression in "
            "z, p[i] and one in z, n, p[i], or use device='cpu'"
        )
    if isinstance(f.cuda, str):
        return f.cuda, []
    arguments = ("Real z, const Real* p", "Real z, Real n, const Real* p")
    functions = dict(zip(("f", "df"), zip(arguments, f.cuda, strict=True), strict=True))
    return name, [_struct(name, functions)]


def layer(dtype: str, f: Activation, stored: str | None = None, delta: str | None = None) -> str:
    """Kernels `activate` and `backprop` of one activation; `stored` is the dtype of z and n."""
    name, struct = _activation(f, "Custom")
    definitions = [
        *map(sources.text, ("philox.cuh", "noise.cuh", "activations.cuh")),
        *struct,
        _stored("Stored", stored),
        _stored("Delta", delta),
        f"typedef {name} Activation;",
        *traits(f),
    ]
    return _program(dtype, definitions, "columns.cuh", "forward.cu", "backward.cu")


def scale(dtype: str, stored: str | None = None) -> str:
    """Kernels `scale` and `scale_gradient`; `stored` is the dtype of W = V diag(s)."""
    return _program(dtype, [_stored("Stored", stored)], "columns.cuh", "scale.cu")


def sparse(dtype: str, stored: str | None = None, z: str | None = None) -> str:
    """Kernels `sparse_product`, `clear_gradient` and `sparse_gradient`; `stored` is the dtype of W
    and delta, `z` that of z."""
    types = _stored("Weight", stored), _stored("Delta", stored), _stored("Stored", z)
    return _program(dtype, [*types, sources.text("sparse.cuh")], "sparse.cu")


def rows(dtype: str) -> str:
    """Kernel `activate_rows`: softmax and log_softmax."""
    return _program(dtype, [], "rows.cu")


def _form(form: Form, rows: bool, log_u: bool) -> list[str]:
    """The definitions of a loss: its struct, and the flags of its kernel."""
    if form.cuda is None:
        raise ValueError(
            "this loss has no CUDA side: give its form cuda=(l, dl), two expressions in u, y and "
            "p[i], or use device='cpu'"
        )
    definitions = [sources.text("losses.cuh")]
    name = form.cuda
    if not isinstance(name, str):
        name = "Custom"
        functions = {
            f: ("Real u, Real y, const Real* p", expression)
            for f, expression in zip(("l", "dl"), form.cuda, strict=True)
        }
        definitions.append(_struct(name, functions))
    definitions += [f"typedef {name} Form;", flag("ROWS", rows), flag("LOG_U", log_u)]
    return [*definitions, sources.text("objective.cuh")]


def loss(dtype: str, form: Form, rows: bool, log_u: bool, delta: str | None = None) -> str:
    """Kernel `loss` of one form."""
    definitions = _form(form, rows, log_u)
    return _program(dtype, [*definitions, _stored("Delta", delta)], "losses.cu")


def prepare_update(dtype: str) -> str:
    """Kernel `prepare_update`."""
    return _program(dtype, [columns(), sources.text("step.cuh")], "prepare_update.cu")


def update(
    dtype: str,
    family: str,
    used: tuple[bool, ...],
    factors: bool = False,
    occurring: bool = False,
) -> str:
    """Kernel `update` of an optimiser that uses these of its state buffers.

    factors: whether slices of the parameters have factors, see `contract.Factors`; occurring:
    whether only features that occur move, see `contract.Occurring`.
    """
    flags = flag("FACTORS", factors), flag("OCCURRING", occurring)
    definitions = [*sources.update_rule(family, used), *flags]
    return _program(dtype, definitions, "update.cu")


def persistent_kernel(shape: Shape, at: Places) -> str:
    """Kernel `train_persistent` for one architecture, whose arrays lie at these places."""
    definitions = [
        *map(sources.text, ("philox.cuh", "noise.cuh", "activations.cuh")),
        *_form(shape.pair.form, shape.pair.rows, shape.pair.log_u),
        flag("FUSED", shape.pair.fused),
        *sources.update_rule(shape.family, shape.state_buffers),
        f"typedef {SOURCE[shape.source]} Source;",
        _constants(
            {
                "LAYERS": len(shape.layers),
                "TILE": at.tile,
                "SIZE": shape.layout.size,
                "NUMBERS": at.numbers,
                "DECAYED": at.decayed,
                "IN_USE": sum(shape.state_buffers),
                "NETWORKS": at.blocks,
            }
        ),
        "template<int k> struct Layer;",
    ]
    for k in shape.layers:
        definitions += _resident_layer(shape, at, k)
    return _program(shape.dtype, definitions, "persistent_products.cuh", "persistent.cu")


def _constants(values: dict[str, int]) -> str:
    return "\n".join(f"constexpr int {name} = {value};" for name, value in values.items())


def _resident_layer(shape: Shape, at: Places, k: int) -> list[str]:
    """The definition of Layer<k>: sizes, places and activation."""
    f, layout = shape.f[k], shape.layout
    assert f is not None
    definitions: list[str] = []
    name = "Identity"  # softmax: the loss is computed from z
    if not f.rows:
        name, definitions = _activation(f, f"Custom{k}")
    numbers = {
        "NUMBER": k,
        "INPUTS": shape.sizes[k - 1],
        "OUTPUTS": shape.sizes[k],
        "IN_LEAD": at.leads[k - 1],
        "LEAD": at.leads[k],
        **{"W": at.W[k], "B": at.b[k], "SLOPE": at.slope.get(k, 0)},
        "FROM_W": layout.W[k].start,
        "FROM_B": layout.b[k].start,
        "FROM_SLOPE": layout.slope[k].start if k in layout.slope else 0,
        **{"X": at.n[k - 1], "N": at.n[k], "Z": at.z.get(k, 0)},
    }
    flags = {
        "KEEPS_Z": shape.keeps_z(k),
        "LEARNED": f.learned,
        "RANDOM": f.random,
        "DROPOUT": shape.dropout[k],
    }
    p = [*f.p, 0.0, 0.0]
    lines = [
        f"typedef {name} F;",
        *(f"static constexpr int {name} = {value};" for name, value in numbers.items()),
        *(f"static {flag(name, value)}" for name, value in flags.items()),
        f"static constexpr double P0 = {float(p[0])!r}, P1 = {float(p[1])!r};",
    ]
    body = "\n    ".join(lines)
    return [*definitions, f"template<> struct Layer<{k}> {{\n    {body}\n}};"]


def gather(dtype: str, source: str, stored: str | None = None) -> str:
    """Kernel `gather` from data of one type into x of the dtype `stored`."""
    definitions = [f"typedef {SOURCE[source]} Source;", _stored("Stored", stored)]
    return _program(dtype, definitions, "gather.cu")


def cast_bf16() -> str:
    """Kernel `cast_bf16`: bfloat16 copies of float32 arrays."""
    return _program("float32", [], "cast_bf16.cu")


def accumulate_metrics(dtype: str) -> str:
    """Kernel `accumulate_metrics`."""
    return _program(dtype, [], "accumulate_metrics.cu")


def shuffle(dtype: str) -> str:
    """Kernels `shuffle_keys` and `shuffle_order`."""
    return _program(dtype, [sources.text("philox.cuh")], "shuffle.cu")


def update_rules() -> Iterator[tuple[str, str, tuple[bool, ...]]]:
    """Yield (label, family, used state buffers) of every program with kernel `update`."""
    rules = {}
    for _, optimizer in examples():
        buffers = optimizer.state_buffers()
        label = "-".join(("update", optimizer.family, *(name for name in buffers if buffers[name])))
        rules[label] = optimizer.family, tuple(buffers.values())
    for label, rule in rules.items():
        yield label, *rule


def programs(dtype: str) -> Iterator[tuple[str, str]]:
    """Yield (label, text) of every program of that dtype, for the tools that compile them all; of
    programs for one architecture, samples."""
    mixed = dtype == "float32"  # some arrays may be in bfloat16
    for f in dict.fromkeys(activations[name].name for name in activations):
        if not activations[f].rows:
            yield f"layer-{f}", layer(dtype, activations[f])
            if mixed:
                yield f"layer-{f}-bf16", layer(dtype, activations[f], BF16, BF16)
                yield f"layer-{f}-bf16-delta", layer(dtype, activations[f], None, BF16)
    forms = {}
    for loss_function in losses.values():
        for output in loss_function.outputs or activations:
            form, _, is_rows, log_u = pair(loss_function, activations[output])
            variable = ("log-p-" if log_u else "p-") if is_rows else ""
            label = f"loss-{variable}{form.cuda}"
            forms[label] = loss(dtype, form, is_rows, log_u)
            if mixed:
                forms[f"{label}-bf16"] = loss(dtype, form, is_rows, log_u, BF16)
    yield from forms.items()
    yield "scale", scale(dtype)
    if mixed:
        yield "scale-bf16", scale(dtype, BF16)
    yield "sparse", sparse(dtype)
    if mixed:
        yield "sparse-bf16", sparse(dtype, BF16, BF16)
        yield "sparse-bf16-weights", sparse(dtype, BF16)
    yield "rows", rows(dtype)
    yield "prepare_update", prepare_update(dtype)
    for label, family, used in update_rules():
        yield label, update(dtype, family, used)
        yield f"{label}-factors", update(dtype, family, used, factors=True)
        yield f"{label}-occurring", update(dtype, family, used, occurring=True)
    yield "accumulate_metrics", accumulate_metrics(dtype)
    yield "shuffle", shuffle(dtype)
    for source in SOURCE:
        yield f"gather-{source}", gather(dtype, source)
        if mixed:
            yield f"gather-{source}-bf16", gather(dtype, source, BF16)
    if mixed:
        yield "cast_bf16", cast_bf16()
    for label, shape in residents.samples(dtype):
        at = residents.fit(shape, residents.H100)
        if at is not None:
            yield f"persistent-{label}", persistent_kernel(shape, at)
