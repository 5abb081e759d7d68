"""Where files are kept that are found or made again without them."""

import os
from pathlib import Path


def folder() -> Path:
    """The user's folder for them: $XDG_CACHE_HOME/gpumlp, or ~/.cache/gpumlp.  Not made here.

    RuntimeError where there is no home.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "gpumlp"
