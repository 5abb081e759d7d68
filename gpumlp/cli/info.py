"""`gpumlp info`: what was found on this machine; with --check, whether it computes rightly."""

import time

from gpumlp.backend import device, selfcheck
from gpumlp.backend.cuda import faults
from gpumlp.cli.choose_device import choose
from gpumlp.cli.error import InputError
from gpumlp.training import persistent_cases
from gpumlp.utils.version import __version__

ROW = "{:13} {:34} {:8} {:>8} {:>8}  {}"


def run(arguments) -> int:
    found = device.found()
    missing = "none found"
    below = f"\n{'':10}"
    lines = [
        ("gpumlp", __version__),
        ("Python", found.python),
        ("platform", found.platform),
        ("NumPy", found.numpy),
        ("BLAS", found.blas),
        ("CPU", found.host),
        ("CuPy", found.cupy or found.cupy_problem),
        ("driver", found.driver or missing),
        ("its CUDA", found.cuda or missing),
        ("GPUs", below.join(found.gpus) or missing),
        ("check", selfcheck.state()),
        ("auto", f"{found.auto} ({found.auto_reason})"),
        ("advice", below.join(found.advice) or "nothing is missing"),
    ]
    _print(lines)
    return 0 if arguments.check is None else _check(arguments.check)


def _print(lines) -> None:
    for name, text in lines:
        print(f"{name:10}{text}")


def _check(asked: str) -> int:
    """The table of every operation on that device; 1 if one is wrong."""
    chosen, shown = choose(asked, "--check", check=False)
    lines = [("checked", shown)]
    if chosen != "cpu":
        lines.append(("cuBLASLt", selfcheck.cublaslt_version()))
        lines.append(("NVRTC", selfcheck.nvrtc_version()))
    _print(lines)
    print("\n" + ROW.format("operation", "case", "type", "error", "allowed", "").rstrip())
    start, count, failed = time.perf_counter(), 0, []
    try:
        for outcome in selfcheck.run(chosen, [*selfcheck.cases(), *persistent_cases.cases()]):
            _print_outcome(outcome)
            count += 1
            failed += [] if outcome.passed else [outcome.case]
    except Exception as error:
        if not faults.is_out_of_memory(error):
            raise
        raise InputError(f"{chosen} has no memory left for the check ({error})") from error
    print(f"\n{count} checks in {time.perf_counter() - start:.1f} s, {len(failed)} failed")
    for case in failed:
        print(f"    {case}")
    return 1 if failed else 0


def _print_outcome(outcome: selfcheck.Outcome) -> None:
    """At once, so that the last line tells what a process did that ends or hangs."""
    case, verdict = outcome.case, "ok" if outcome.passed else "FAILED"
    numbers = f"{outcome.error:.1e}", f"{case.tolerance:.1e}"
    print(ROW.format(case.operation, case.what, case.dtype, *numbers, verdict), flush=True)
    if outcome.raised:
        print(f"    {outcome.raised}", flush=True)
