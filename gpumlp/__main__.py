"""`python -m gpumlp` is the command `gpumlp`."""

import sys

from gpumlp.cli import main

sys.exit(main())
