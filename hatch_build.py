"""Compile for wheels what is else compiled at first use: kernels/ with all built-in functions.

Where there is no compiler, or no level of CPUs that is compiled for, the wheel is pure; also where
HATCH_BUILD_NO_HOOKS=true.  An editable install compiles at first use.
"""

import platform
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):
    """A wheel py3-none-PLATFORM: the compiled programs need nothing of Python's."""

    def initialize(self, version, build_data):
        if version == "editable" or platform.system() != "Linux":
            return
        sys.path.insert(0, self.root)
        from gpumlp.backend.cpu import compiler, host_sources, pool, processor

        levels = [
            name
            for name, level in processor.LEVELS.items()
            if level.machine == platform.machine() and sys.maxsize > 2**32
        ]
        self.folder = tempfile.TemporaryDirectory(prefix="gpumlp-wheel-")
        try:
            for level in levels:
                folder = Path(self.folder.name, level)
                folder.mkdir()
                ship = partial(compiler.ship, level=level, folder=folder)
                with ThreadPoolExecutor(pool.threads()) as threads:
                    list(threads.map(ship, sorted(host_sources.built_in())))
        except compiler.Failure as failure:
            self.app.display_warning(
                f"A wheel without compiled programs: {failure}. {failure.remedy}"
            )
            return
        if levels:
            build_data["force_include"][self.folder.name] = "gpumlp/kernels/compiled"
            build_data["pure_python"] = False
            system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{system}"

    def finalize(self, version, build_data, artifact_path):
        if hasattr(self, "folder"):
            self.folder.cleanup()
