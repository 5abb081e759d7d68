"""The operations of gpumlp/backend/contract.py on a device."""

from __future__ import annotations

from gpumlp.backend.contract import Ops


def get(device: str, precision: str = "float32", tune: bool = False) -> Ops:
    """Make the operations on "cpu" or "cuda:i"; each network has an object of its own.

    precision, tune: of the products on a GPU, see `gpumlp.MLP`.
    """
    if device == "cpu":
        from gpumlp.backend.cpu import compiler

        if compiler.problem() and not compiler.shipped():
            compiler.complain()
            from gpumlp.backend.reference.numpy_ops import NumpyOps

            return NumpyOps()
        from gpumlp.backend.cpu.host_ops import HostOps

        return HostOps()
    from gpumlp.backend.cuda.cupy_ops import CupyOps

    return CupyOps(int(device.removeprefix("cuda:")), precision, tune)
