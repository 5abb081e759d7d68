"""`gpumlp info`: what was found on this machine."""

from gpumlp import __version__, device


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
        ("auto", f"{found.auto} ({found.auto_reason})"),
        ("advice", below.join(found.advice) or "nothing is missing"),
    ]
    for name, text in lines:
        print(f"{name:10}{text}")
    return 0
