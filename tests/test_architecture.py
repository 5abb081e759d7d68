"""Which part of the package imports which: each folder only those below it, and no circles.

Imports inside functions count; what only a type checker reads does not.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gpumlp"

# From the top to the bottom: a folder imports from those below it.
ORDER = (
    "cli",
    "io",
    "search",
    "estimators",
    "training",
    "model",
    "backend",
    "functions",
    "utils",
)
# The same within backend/: the parts, then what they are made of.
BACKEND = (
    *("device", "selfcheck", "__init__"),
    *("cuda", "cpu", "reference"),
    *("sources", "layout", "contract", "sparse_rows"),
)
TOP_LEVEL = 12  # names in gpumlp/ at most
LEVELS = 9  # of folders that import each other, at most


@cache
def modules() -> dict[str, Path]:
    """All modules by their dotted names."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def file_of(name: str) -> str | None:
    """The module of that name, if the package has it; of a folder its __init__."""
    return next((each for each in (name, f"{name}.__init__") if each in modules()), None)


def imports(name: str) -> Iterator[str]:
    """The package's modules that a module imports."""
    for node in ast.walk(without_types(ast.parse(modules()[name].read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            yield from filter(None, (file_of(alias.name) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            parent = node.module or ""
            for alias in node.names:
                found = file_of(f"{parent}.{alias.name}") or file_of(parent)
                if found:
                    yield found


def without_types(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of `if TYPE_CHECKING`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


@cache
def arrows() -> dict[str, list[str]]:
    return {name: sorted(set(imports(name)) - {name}) for name in modules()}


def folder(name: str) -> str:
    """The folder at the top of the package; of the package's own files their names."""
    return name.split(".")[1]


def rank(name: str) -> int:
    """A folder's place from the bottom; the public door and __main__ lie above all."""
    return len(ORDER) - ORDER.index(folder(name)) if folder(name) in ORDER else len(ORDER) + 1


def circle(graph: dict[str, list[str]]) -> list[str]:
    """Nodes that lead back to the first of them, or nothing."""
    done: set[str] = set()

    def visit(node: str, way: list[str]) -> list[str]:
        if node in way:
            return way[way.index(node) :]
        if node in done:
            return []
        for each in graph[node]:
            if found := visit(each, [*way, node]):
                return found
        done.add(node)
        return []

    return next(filter(None, (visit(node, []) for node in graph)), [])


@pytest.mark.parametrize("name", ORDER)
def test_folder_imports_only_from_below(name):
    own = [module for module in modules() if folder(module) == name]
    assert own, f"there is no folder {name}"
    # The public door, gpumlp/__init__.py, is for users: of the package the command line is one.
    wrong = [
        f"{module} imports {other}"
        for module in own
        for other in arrows()[module]
        if rank(other) > rank(module) and not (name == "cli" and other == "gpumlp.__init__")
    ]
    assert not wrong


def test_parts_of_the_backend_import_only_from_below():
    def part(module: str) -> str:
        return module.split(".")[2]

    wrong = [
        f"{module} imports {other}"
        for module in modules()
        for other in arrows()[module]
        if folder(module) == folder(other) == "backend"
        and BACKEND.index(part(other)) < BACKEND.index(part(module))
    ]
    assert not wrong


def test_no_circle_of_files():
    assert circle(arrows()) == []


def test_circle_is_found():
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_package_is_small_at_its_top():
    names = {folder(module) for module in modules()}
    assert names == {*ORDER, "__init__", "__main__"}
    assert len(names) <= TOP_LEVEL
    assert len(ORDER) <= LEVELS


def test_modules_have_names_of_their_own():
    stems = [path.stem for path in modules().values() if not path.stem.startswith("__")]
    assert {name for name in stems if stems.count(name) > 1} == set()
