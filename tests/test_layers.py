"""Imports point one way only: a module imports from its own layer's left, never from its right, and in no cycle."""

import ast
from pathlib import Path

import graphssl

ROOT = Path(graphssl.__file__).parent
LAYERS = [
    {"errors"}, {"ops"}, {"graph"}, {"tokens", "masks", "augment", "losses", "heads", "teacher", "balance"},
    {"backbones"}, {"encoder"}, {"methods"}, {"data"}, {"train"}, {"probes"}, {"recipes"}, {"report", "plot", "store"},
    {"pretrained"}, {"finetune"}, {"api"}, {"__init__"}, {"cli", "ogb"}, {"__main__"},
]  # fmt: skip
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
LATE = {("pretrained", "finetune")}  # Pretrained.finetune hands over to the module that builds on it


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
            fits = RANK[there] < RANK[here] or there == here or (here, there) in LATE
            assert fits, f"{path.relative_to(ROOT)}: {here} imports {there}, which stands to its right"
    assert seen > 50


def test_layers_of_one_rank_do_not_import_each_other():
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        assert all(there == here or RANK[there] != RANK[here] for there in imports(path))
