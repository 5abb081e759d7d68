"""Whether a mutant is a program: what no compiler takes is none."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from gpumlp.backend.cpu import host_sources
from gpumlp.backend.cuda import cuda_sources
from gpumlp.functions.activation import activations
from gpumlp.functions.loss import losses, pair
from tests.seeded import Bug, planted
from tests.simt import BuildError, compiler

SAMPLES = 3  # programs that one file of kernels/ is compiled in


def is_program(file: str, before: str, after: str) -> bool:
    """The file, relative to the repository, with the text `after` in the place of `before`."""
    if file.endswith(".py"):
        try:
            compile(after, file, "exec")
        except SyntaxError:
            return False
        return True
    name = Path(file).name
    on_host = file.startswith("kernels/cpu/")
    programs, check = (_host, _host_takes) if on_host else (_cuda, _shim_takes)
    chosen = _chosen(name, programs)
    with planted(Bug(name, before, after, check="")):
        texts = [text for label, text in programs() if label in chosen]
        return all(map(check, texts))


@functools.cache
def _chosen(name: str, programs) -> set[str]:
    """Labels of programs that the file is part of, spread over all of them."""
    mark = f'#line 1 "{name}"\n'
    labels = [label for label, text in programs() if mark in text]
    return set(labels[:: max(1, len(labels) // SAMPLES)])


def _cuda() -> Iterator[tuple[str, str]]:
    yield from cuda_sources.programs("float32")


def _host() -> Iterator[tuple[str, str]]:
    for dtype in "float32", "float64":
        for name in "relu", "prelu", "rrelu", "gelu":
            yield f"{name} {dtype}", host_sources.layer(dtype, activations[name])
        for name in "cross_entropy", "squared_error":
            each = losses[name]
            output = activations[(each.outputs or ["identity"])[0]]
            form, _, rows, log_u = pair(each, output)
            yield f"{name} {dtype}", host_sources.loss(dtype, form, rows, log_u)
        yield f"rows {dtype}", host_sources.rows(dtype)
        yield f"sparse {dtype}", host_sources.sparse(dtype)
        yield f"gemm {dtype}", host_sources.gemm(dtype, "int")
        yield f"prepare_update {dtype}", host_sources.prepare_update(dtype)
        for label, family, used in cuda_sources.update_rules():
            yield f"{label} {dtype}", host_sources.update(dtype, family, used)
        yield f"gather {dtype}", host_sources.gather(dtype, "float32")
    yield "sequence", host_sources.sequence()
    yield "shuffle", host_sources.shuffle()


def _shim_takes(text: str) -> bool:
    flags = compiler.program_flags((), None)
    try:
        translated = compiler._translate(text, "module.cu", flags)
        compiler._compile(
            [*flags, f"-I{compiler.SHIM}", "-fsyntax-only", "-x", "c++", "-"], translated
        )
    except BuildError:
        return False
    return True


def _host_takes(text: str) -> bool:
    command = [compiler.require_compiler(), "-std=c++17", "-fsyntax-only"]
    done = subprocess.run([*command, "-x", "c++", "-"], input=text, text=True, capture_output=True)
    return done.returncode == 0
