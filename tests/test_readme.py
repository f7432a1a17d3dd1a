"""The README's Python runs as it stands, with one epoch in place of hundreds; its tree names what is there."""

import re
from pathlib import Path

import pytest
from test_layers import RANK

import graphssl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TREE = README[README.index("## The tree") : README.index("Reading order")]
NAMES = re.findall(r"^  (\S+)  ", TREE, re.MULTILINE)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    assert len(BLOCKS) == 7
    pytest.importorskip("rdkit")
    monkeypatch.chdir(tmp_path)
    plain = graphssl.pretrain

    def quick(dataset, method="graphmae", **settings):
        small = {"width": 8} if isinstance(method, str) else {}
        return plain(dataset, method, **{**settings, **small, "epochs": 1, "progress": False})

    monkeypatch.setattr(graphssl, "pretrain", quick)
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    assert (tmp_path / "codes.png").exists()
    assert (tmp_path / "codes.csv").exists()
    assert set(names["run"].history) >= {"loss", "smooth"}


@pytest.mark.parametrize("line", NAMES)
def test_the_tree_names_what_is_there(line):
    assert (ROOT / "graphssl" / line).exists()


def test_the_tree_stands_in_the_order_of_imports():
    ranks = [RANK[name.rstrip("/,").removesuffix(".py")] for name in NAMES]
    assert ranks == sorted(ranks)


def test_the_tree_is_whole():
    assert len(NAMES) > 15
    for path in (ROOT / "graphssl").iterdir():
        if not path.name.startswith("__"):
            assert path.name in TREE, f"{path.name} is missing in the README's tree"
