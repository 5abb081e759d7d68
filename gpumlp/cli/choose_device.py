"""The --device option, and that of --check: which device a string means here, with complaints made
into sentences."""

import os
import warnings

from gpumlp.backend import device
from gpumlp.backend.cuda import driver
from gpumlp.cli.error import InputError, complain

VALID = "auto, cpu, cuda or cuda:<number>, such as cuda:1"


def choose(asked: str, option: str = "--device", check: bool = True) -> tuple[str, str]:
    """The device to use, and how to present it.

    A GPU that is there but cannot be used for want of CuPy is pointed out.
    option: by which it was asked for.
    check: see `device.gpu_problem`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = device.look_up(asked, check)
        except ValueError as error:
            name, text = option, asked
            if asked == "auto":  # it means what the environment variable says
                name, text = device.VARIABLE, os.environ[device.VARIABLE]
            raise InputError(f"{name}: expected {VALID}, not {text!r}") from error
    if not answer.use:
        name = f"{answer.by}={answer.device}" if answer.by else f"{option} {asked}"
        raise InputError(f"{name}: {answer.problem} Or use {option} cpu.")
    chosen = answer.use
    for warning in caught:
        complain(f"warning: {warning.message}")
    if chosen != "cpu" or asked == "cpu" or caught or driver.cuda_version() is None:
        return chosen, chosen
    problem = device.gpu_problem(0, check)
    return chosen, f"cpu ({problem})" if problem else "cpu"
