"""How fast gpumlp is, against its peers and against the limits of the machine.

`python -m benchmarks` measures, `python -m benchmarks.gpu` checks, tests and measures on a GPU.
"""

import os

STAND_IN = "GPUMLP_BENCHMARKS_STAND_IN"

if os.environ.get(STAND_IN):  # a dry run without a GPU, in all of its processes
    from tests import standin

    standin.install()
