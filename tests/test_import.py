"""`import gpumlp` costs nothing, and what is used of it loads no heavy library."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import gpumlp

# Of a statement in a fresh process: the modules that it loads, and how many functions it calls.
# Unlike the time, neither depends on what else the machine does.
MEASURE = """
import json, sys
before, calls = set(sys.modules), 0
def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")
sys.setprofile(count)
{statement}
sys.setprofile(None)
print(json.dumps([sorted(set(sys.modules) - before), calls]))
"""
HEAVY = {"cupy", "cupy_backends", "sklearn", "pandas", "matplotlib", "scipy", "joblib"}
MOST_CALLS = 2000  # `import subprocess` makes three times as many, `import numpy` seventy times


def measure(statement: str) -> tuple[set[str], int]:
    command = [sys.executable, "-c", MEASURE.format(statement=statement)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules, calls = json.loads(done.stdout)
    return set(modules), calls


def test_import_loads_only_itself():
    modules, calls = measure("import gpumlp")
    others = {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names}
    assert others == {"gpumlp", "gpumlp.utils", "gpumlp.utils.version"}
    assert calls < MOST_CALLS


def test_networks_and_trainers_load_no_heavy_library():
    modules, _ = measure("import gpumlp; gpumlp.MLP((4, 3), device='cpu'); gpumlp.Trainer")
    assert {"gpumlp.model.network", "gpumlp.training.trainer"} <= modules
    assert not modules & HEAVY


def test_type_checkers_see_the_public_names():
    """What is loaded at need stands once more in the block for type checkers."""
    tree = ast.parse(Path(gpumlp.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        (alias.asname, f"gpumlp.{module}")
        for node in block.body
        for alias in node.names
        for module in [node.module.removeprefix("gpumlp.")]
    }
    assert seen == {(name, f"gpumlp.{module}") for name, module in gpumlp._MODULE.items()}
    assert (Path(gpumlp.__file__).parent / "py.typed").is_file()
