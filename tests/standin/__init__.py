"""A stand-in for the part of CuPy that the library uses, on a machine without a GPU.

    cupy = standin.install(monkeypatch)         # "import cupy" now gives the stand-in
    with standin.count() as c: ...              # c.launches, c.h2d, c.synchronisations, ...
    standin.machine.memory = 1 << 20            # a device of one mebibyte
    standin.leave(monkeypatch, 1 << 20)         # or so many bytes besides those in use

Device arrays are host memory that nobody reaches by accident; kernels are the library's own
CUDA texts, run by the SIMT shim; GEMMs go through the library's binding of cuBLASLt. It is strict
where CuPy is strict, and also where CuPy or CUDA would go wrong in silence. Work is done when it
is submitted, but for copies from page-locked memory, which take as long as they may: ordering.py.
Threads may use it side by side, if on one device: they share the current device, which in CUDA each
has for itself.
"""

from .counting import Counters, count, counters
from .hardware import machine
from .modules import build, install, uninstall
from .pool import leave

__all__ = ["Counters", "build", "count", "counters", "install", "leave", "machine", "uninstall"]
