"""Wrong kernels: changes to the texts of kernels/, each with the rung that catches it.

`python -m tests.seeded NAME` runs the check of one of them on the changed kernel, in a process of
its own; `simt.sanitize.run` starts it so that the kernels are instrumented.
"""

import contextlib
from dataclasses import dataclass

from gpumlp import backend
from gpumlp.backend import sources
from tests.operations.selection import SELECTION

# Who catches a bug.
NUMBERS = "numbers"  # rung 3: the kernel on the SIMT shim, in some order of threads
ADDRESS = "address"  # rung 4: AddressSanitizer with UBSan
THREAD = "thread"  # rung 4: ThreadSanitizer
MACHINE_CODE = "machine code"  # rung 2: what the compiler makes of it


@dataclass(frozen=True)
class Bug:
    """`right` becomes `wrong` in a file of kernels/, wherever it stands."""

    file: str
    right: str
    wrong: str
    check: str  # a name of SELECTION; for machine code, the label of a program
    caught_by: str = NUMBERS
    message: str = ""  # the report, as a regular expression


@contextlib.contextmanager
def planted(bug: Bug):
    """The library's programs are made with the bug."""
    sound = sources.text
    if bug.right not in sound(bug.file):
        raise LookupError(f"kernels/{bug.file} does not hold {bug.right!r}")

    def text(name):
        return sound(name).replace(bug.right, bug.wrong) if name == bug.file else sound(name)

    sources.text = text
    try:
        yield
    finally:
        sources.text = sound


def run(bug: Bug) -> None:
    """The check of this bug, on the kernels with it."""
    with planted(bug):
        SELECTION[bug.check](backend.get("cuda:0"))
