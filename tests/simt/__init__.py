"""Run CUDA kernels on the CPU: the same program text, one fiber per CUDA thread.

    module = simt.build(text, name="forward.cu")
    kernel = module.get_function("forward")
    kernel((grid,), (block,), (x, out, np.int64(x.size)))

The arrays are NumPy's, and the call has the form and the rules of CuPy's RawKernel; what CuPy
would silently get wrong (a float64 for a float parameter, a strided array) raises ArgumentError.
What a kernel does wrong while it runs (a barrier that not all threads meet, a shuffle from a lane
that has exited, a misaligned access) raises LaunchError. `simt.sanitize` runs tests under
AddressSanitizer with UndefinedBehaviorSanitizer, or under ThreadSanitizer.

Environment: GPUMLP_SIMT_SANITIZE (address | thread) is the default of build's `sanitize`,
GPUMLP_SIMT_ORDER the default thread order of launches.
"""

from .arguments import ArgumentError
from .compiler import BuildError, CompilerMissing, why_no_compiler
from .module import Kernel, LaunchError, Module, build, build_all

__all__ = [
    "ArgumentError",
    "BuildError",
    "CompilerMissing",
    "Kernel",
    "LaunchError",
    "Module",
    "build",
    "build_all",
    "why_no_compiler",
]
