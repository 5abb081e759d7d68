"""From CUDA C++ to C++ on the runtime of shim/: the little that headers cannot do.

The text is preprocessed first, so there are no comments or macros left to mislead the patterns.
Lines stay where they are: messages of compiler and sanitizers name the lines of the program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class TranslationError(ValueError):
    """The text has a construct that this translation does not know."""


@dataclass(frozen=True)
class KernelDeclaration:
    name: str
    parameters: tuple[str, ...]  # their names
    largest_block: str  # the first argument of __launch_bounds__, an expression


def translate(preprocessed: str) -> str:
    """C++ that defines the program's functions and the table `simt_kernels`."""
    kernels = find_kernels(preprocessed)
    return "\n".join(
        [
            '#include "cuda_builtins.h"',
            '#include "registry.h"',
            translate_shared(preprocessed),
            kernel_table(kernels),
        ]
    )


# ------------------------------------------------------------------ shared memory

ALIGNMENT = r"(?:alignas|__align__)\s*\(\s*(?P<{}>[^()]*)\)\s*"
SHARED = re.compile(
    r"(?P<extern>\bextern\s+)?(?:\bstatic\s+)?(?:\b"
    + ALIGNMENT.format("before")
    + r")?\b__shared__\s+(?:"
    + ALIGNMENT.format("after")
    + r")?(?P<declaration>[^;{}=]*);"
)
DECLARATOR = re.compile(r"\s*(?P<type>.*?)(?P<name>\w+)\s*(?P<extents>(?:\[[^\]]*\]\s*)*)$", re.S)


def translate_shared(text: str) -> str:
    """Make every __shared__ variable a reference into the block's shared memory."""
    translated = SHARED.sub(_shared_declaration, text)
    left = re.search(r"\b__shared__\b[^;]*;?", translated)
    if left:
        raise TranslationError(f"cannot translate the declaration {left.group()!r}")
    return translated


def _shared_declaration(match: re.Match) -> str:
    first, *others = split_at_commas(match["declaration"])
    declarator = DECLARATOR.match(first)
    if declarator is None or not declarator["type"].strip():
        raise TranslationError(f"cannot translate the declaration {match.group()!r}")
    base = declarator["type"].strip()
    variables = [(declarator["name"], declarator["extents"])]
    for other in others:
        declarator = DECLARATOR.match(other)
        if declarator is None or declarator["type"].strip():
            raise TranslationError(f"cannot translate the declaration {match.group()!r}")
        variables.append((declarator["name"], declarator["extents"]))

    if match["extern"]:
        name, _ = variables[0]
        code = f"{base}* {name} = static_cast<{base}*>(simt::dynamic_shared());"
    else:
        alignment = match["before"] or match["after"]
        code = " ".join(_static_variable(base, *variable, alignment) for variable in variables)
    return code + "\n" * match.group().count("\n")


def _static_variable(base: str, name: str, extents: str, alignment: str | None) -> str:
    extents = " ".join(extents.split())
    if alignment is None:
        alignment = f"{name}_type"
    boundary = alignment if alignment.strip().isdigit() else f"alignof({alignment})"
    return (
        f"typedef {base} {name}_type{extents}; static char {name}_site; "
        f"{name}_type& {name} = simt::shared<{name}_type, {boundary}>(&{name}_site);"
    )


# ------------------------------------------------------------------ kernels

KERNEL = re.compile(r'\bextern\s+"C"\s+(?:static\s+)?__global__\b')
NAME_AND_PARENTHESIS = re.compile(r"\s*(\w+)\s*(\()?")


def find_kernels(text: str) -> list[KernelDeclaration]:
    """The program's `extern "C" __global__` functions, in order, each once."""
    kernels = {}
    for start in KERNEL.finditer(text):
        kernel = _read_kernel(text, start.end())
        kernels.setdefault(kernel.name, kernel)
    return list(kernels.values())


def _read_kernel(text: str, position: int) -> KernelDeclaration:
    largest_block = "1024"
    while True:
        word = NAME_AND_PARENTHESIS.match(text, position)
        if word is None:
            line = text[position : position + 60].strip()
            raise TranslationError(f"cannot read the kernel declaration at {line!r}")
        position = word.end()
        if not word[2]:
            continue  # void
        end = closing_parenthesis(text, position)
        inside = split_at_commas(text[position:end])
        position = end + 1
        if word[1] == "__launch_bounds__":
            largest_block = inside[0].strip()
        elif word[1] not in ("__attribute__", "alignas"):
            return KernelDeclaration(word[1], parameter_names(inside), largest_block)


def parameter_names(parameters: list[str]) -> tuple[str, ...]:
    if len(parameters) == 1 and parameters[0].strip() in ("", "void"):
        return ()
    return tuple(re.findall(r"\w+", parameter)[-1] for parameter in parameters)


def kernel_table(kernels: list[KernelDeclaration]) -> str:
    rows = "".join(
        f'    SIMT_KERNEL({kernel.name}, "{",".join(kernel.parameters)}",'
        f" {kernel.largest_block}),\n"
        for kernel in kernels
    )
    return (
        '\n#line 1 "kernel table"\n'
        'extern "C" SIMT_EXPORT const simt::Kernel simt_kernels[] = {\n' + rows + "    {}\n};\n"
        f'extern "C" SIMT_EXPORT const int simt_kernel_count = {len(kernels)};\n'
    )


# ------------------------------------------------------------------ balanced text


def closing_parenthesis(text: str, start: int) -> int:
    """The position of the parenthesis that closes the one just before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise TranslationError(f"unbalanced parentheses after {text[start : start + 60]!r}")


def split_at_commas(text: str) -> list[str]:
    """Split at the commas that no bracket encloses."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in "([{<":
            depth += 1
        elif character in ")]}>":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return parts
