"""Runs the check of one bug, for simt.sanitize.run."""

import sys

from tests import standin

from . import run
from .bugs import BUGS

standin.install()
run(BUGS[sys.argv[1]])
