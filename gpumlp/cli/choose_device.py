"""The --device option, and that of --check: which device a string means here, with complaints made
into sentences."""

import warnings

from gpumlp.backend import device
from gpumlp.backend.cuda import driver
from gpumlp.cli.error import InputError, complain


def choose(asked: str, option: str = "--device", check: bool = True) -> tuple[str, str]:
    """The device to use, and how to present it.

    A GPU that is there but cannot be used for want of CuPy is pointed out.
    option: by which it was asked for.
    check: see `device.gpu_problem`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            chosen = device.resolve(asked, check)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{option}: {error}") from error
    for warning in caught:
        complain(f"warning: {warning.message}")
    if chosen != "cpu" or asked == "cpu" or caught or driver.cuda_version() is None:
        return chosen, chosen
    problem = device.gpu_problem(0, check)
    return chosen, f"cpu ({problem})" if problem else "cpu"
