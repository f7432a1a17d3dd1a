"""Imports point one way only: a module imports from its own layer's left, never from its right, and in no cycle."""

import ast
from pathlib import Path

import graphssl

ROOT = Path(graphssl.__file__).parent
LAYERS = [
    {"errors"}, {"processes"}, {"ops"}, {"graph"},
    {"tokens", "masks", "structure", "losses", "heads", "teacher", "balance"}, {"augment"},
    {"backbones"}, {"encoder"}, {"methods"}, {"data"}, {"train"}, {"probes"}, {"recipes"},
    {"report", "plot", "store", "finetune"}, {"select", "monitor"}, {"runner"}, {"loading"}, {"embed"}, {"pretrained"},
    {"api", "integrate"}, {"__init__"}, {"ogb"}, {"cli"}, {"__main__"},
]  # fmt: skip
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "graphssl":
            assert node.level == 0
            deeper = (node.module or "").split(".")[1:]
            yield from [deeper[0]] if deeper else [a.name if a.name in RANK else "__init__" for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
        elif isinstance(node, ast.Import):
            yield from ["__init__" for alias in node.names if alias.name.split(".")[0] == "graphssl"]


def test_imports_point_one_way():
    seen = 0
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        assert here in RANK, f"{path}: give {here} a place among the layers"
        for there in imports(path):
            seen += 1
            fits = RANK[there] < RANK[here] or there == here
            assert fits, f"{path.relative_to(ROOT)}: {here} imports {there}, which stands to its right"
    assert seen > 50


def modules_imported(path: Path) -> set[Path]:
    """The files of the package that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "graphssl":
            base = ROOT.joinpath(*(node.module or "").split(".")[1:])
            for alias in node.names:
                for place in (base / f"{alias.name}.py", base.with_suffix(".py"), base / "__init__.py"):
                    if place.exists():
                        found.add(place)
                        break
    return found


def test_no_module_imports_itself_by_a_detour():
    edges = {path: modules_imported(path) for path in ROOT.rglob("*.py") if path.name != "__init__.py"}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(p.name for p in (*trail[trail.index(path) :], path))
        if path not in done:
            for there in edges.get(path, ()):
                visit(there, (*trail, path))
            done.add(path)

    for path in edges:
        visit(path, ())
