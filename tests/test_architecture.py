"""Imports point one way: what a module may know of is told from its source, also where it imports late."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("onnx_inspect", "exporters")

# Each group of modules may import from the groups before it, and from its own.
ORDER = (
    ("errors", "discover", "ops", "_version"),
    ("atomic", "params"),
    ("tensorboard",),
    ("graph",),
    ("feeds", "results", "cluster"),
    ("engine",),
    ("trace", "heads", "targets", "inputs", "forms"),
    ("cam", "analysis", "embed"),
    ("scene", "sections", "slopes", "embedded"),
    ("methods", "smoothing", "attention", "capture", "baked", "relevance"),  # what wires methods and engine
    ("comparing",),  # models with each other
    ("embedding", "channels", "concepts", "remote"),
    ("board",),
    ("render",),
    ("api",),  # the facade for Python
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

# Who alone may import what is heavy, or what would let a concern leak.
OWNERS = {
    "onnxruntime": ("onnx_inspect/engine.py",),
    "matplotlib": ("onnx_inspect/render/", "onnx_inspect/cli/_session.py"),
    "torch": ("exporters/",),
    "click": ("onnx_inspect/cli/",),
    "rich": ("onnx_inspect/cli/", "onnx_inspect/render/"),
    "PIL": ("onnx_inspect/inputs/", "onnx_inspect/render/", "onnx_inspect/tensorboard.py"),
    "tensorboard": ("onnx_inspect/tensorboard.py",),
    "onnx": ("onnx_inspect/graph/", "onnx_inspect/inputs/", "exporters/"),
    "sklearn": ("onnx_inspect/cam/", "onnx_inspect/embed/", "onnx_inspect/analysis/"),
    "ray": ("onnx_inspect/cluster.py",),
    "umap": ("onnx_inspect/embed/umap.py",),
    "openTSNE": ("onnx_inspect/embed/tsne.py",),
    "scipy": ("onnx_inspect/cam/", "onnx_inspect/embed/", "onnx_inspect/analysis/"),
    "exporters": ("exporters/",),
}
# Slow to import: never at the top of a module.
LATE = ("sklearn", "scipy", "torch", "ray", "tensorboard", "umap", "openTSNE")
CLI_TOP = ("click", "onnx_inspect.discover", "onnx_inspect.errors", "onnx_inspect._version", "onnx_inspect.cli")


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    """Names of the modules that a file imports when it runs; what only a type checker sees is left out."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def group(module: str) -> str | None:
    """The part of the package that a module belongs to: ``graph`` for ``onnx_inspect.graph.model``."""
    parts = module.split(".")
    return parts[1] if parts[0] == "onnx_inspect" and len(parts) > 1 and parts[1] in RANK else None


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    own = group(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        return  # the package's own __init__, and the exporters: checked by owners
    for module in imports(path):
        other = group(module)
        if other is not None:
            ahead = RANK[other] > RANK[own] or (RANK[other] == RANK[own] and other != own and own in ("cam", "embed"))
            assert not ahead, f"{relative(path)} imports {module}: {own} may not know of {other}"


def test_every_part_of_the_package_has_a_place() -> None:
    found = {p.stem for p in (ROOT / "onnx_inspect").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert found - {"__init__"} <= set(RANK)


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_heavy_packages_have_owners(path: Path) -> None:
    for module in imports(path):
        owners = OWNERS.get(module.split(".")[0])
        assert owners is None or relative(path).startswith(owners), f"{relative(path)} may not import {module}"


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_slow_packages_are_imported_late(path: Path) -> None:
    if path.is_relative_to(ROOT / "exporters"):
        return  # a framework's exporter is itself imported late
    slow = [module for module in imports(path, top_only=True) if module.split(".")[0] in LATE]
    assert not slow, f"{relative(path)} imports {slow[0]} at its top"


@pytest.mark.parametrize("path", sorted((ROOT / "onnx_inspect" / "cli").glob("*.py")), ids=relative)
def test_commands_import_almost_nothing_at_their_top(path: Path) -> None:
    import sys

    for module in imports(path, top_only=True):
        light = module.split(".")[0] in sys.stdlib_module_names or module.startswith(CLI_TOP)
        assert light or module == "onnx_inspect.discover", f"{relative(path)} imports {module} at its top"


def test_one_file_names_the_exporters() -> None:
    """Their package is found by its name, never imported by what ships without frameworks."""
    named = [p for p in sources() if any(isinstance(n, ast.Constant) and n.value == "exporters" for n in _nodes(p))]
    assert [relative(path) for path in named] == ["onnx_inspect/cli/_frameworks.py"]


def _nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text()))


def test_pyplot_is_used_nowhere() -> None:
    for path in sources():
        assert not any("pyplot" in module for module in imports(path)), relative(path)


def test_cam_methods_and_analysis_never_run_a_model() -> None:
    for folder in ("cam", "analysis", "embed"):
        for path in (ROOT / "onnx_inspect" / folder).glob("*.py"):
            assert not any(group(module) == "engine" for module in imports(path)), relative(path)


def test_the_import_reader_sees_what_it_should(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "from __future__ import annotations\nimport a.b\nfrom c import d\n"
        "if TYPE_CHECKING:\n    import hidden\n"
        "def f():\n    import late\n"
    )
    assert set(imports(path)) == {"__future__.annotations", "a.b", "c.d", "late"}
    assert set(imports(path, top_only=True)) == {"__future__.annotations", "a.b", "c.d"}


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_file_says_its_question_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{relative(path)} doesn't say which question it answers"
    assert text.count("\n") <= 450, f"{relative(path)} answers more than one question by now"
