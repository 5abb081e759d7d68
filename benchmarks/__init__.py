"""How fast gpumlp is, against its peers and against the limits of the machine.

`python -m benchmarks` measures, `python -m benchmarks.gpu` checks, tests and measures on a GPU.
"""
