"""Data sets by name: the two that ship, and every real one that this machine has."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from graphssl.data import convert, download, list_datasets, load_dataset, origin
from graphssl.data import files as files_module
from graphssl.data.features import ATOM_FIELDS, BOND_FIELDS, blocks
from graphssl.errors import UserError
from graphssl.ops import Rows, dense

ROOT = Path(__file__).resolve().parents[2]
DATA = (ROOT / (os.environ.get("GRAPHSSL_DATA") or "../shared/data")).resolve()  # absolute: tests may change folder


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An empty home and no $GRAPHSSL_DATA: only what ships is here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GRAPHSSL_DATA", raising=False)
    return tmp_path


@pytest.fixture
def real(bare, monkeypatch):
    if not (DATA / "node").is_dir():
        pytest.skip(f"no real data sets in {DATA}; set GRAPHSSL_DATA to a folder of them")
    monkeypatch.setenv("GRAPHSSL_DATA", str(DATA))


def files(folder):
    return sorted(path.stem for path in (DATA / folder).glob("*.npz"))


def check_splits(dataset):
    count = dataset.graph.num_nodes if dataset.task == "node" else len(dataset.graphs)
    for splits in dataset.splits.values():
        for split in splits:
            rows = torch.cat([split.train, split.val, split.test])
            assert len(rows.unique()) == len(rows)
            assert 0 <= int(rows.min()) <= int(rows.max()) < count
            assert min(len(split.train), len(split.test)) > 0


def check_sorted(graph):
    source, target = graph.edge_index
    key = target * graph.num_nodes + source
    assert bool((key[1:] >= key[:-1]).all())


@pytest.mark.parametrize("stem", files("node") or ["absent"])
def test_every_node_file_loads(stem, real):
    dataset = load_dataset(stem)
    assert dataset.name == stem.replace("_", "-")
    assert dataset.task == "node"
    C = int(dataset.y.max()) + 1
    assert dataset.y.unique().tolist() == list(range(C))
    assert len(dataset.y) == dataset.graph.num_nodes == dataset.graph.x.size(0)
    check_sorted(dataset.graph)
    check_splits(dataset)
    default = next(iter(dataset.splits))
    assert default in ("public", "geom", "platonov", "per-class-20", "random-1:1:8")
    for name, splits in dataset.splits.items():
        assert len(splits) == (1 if name == "public" or name.startswith("per-class") else 10)
        assert all(len(split.val) for split in splits)


@pytest.mark.parametrize("stem", [*files("graph"), *files("molecule")] or ["absent"])
def test_every_graph_file_loads(stem, real):
    dataset = load_dataset(stem)
    assert dataset.task == "graph"
    assert len(dataset.y) == len(dataset.graphs)
    check_splits(dataset)
    whole = dataset.batch(range(len(dataset.graphs)))
    check_sorted(whole)
    assert whole.sizes == tuple(graph.num_nodes for graph in dataset.graphs)
    folder = "molecule" if stem.startswith("ogbg") else "graph"
    assert next(iter(dataset.splits)) == ("scaffold" if folder == "molecule" else "fold")
    with np.load(DATA / folder / f"{stem}.npz", allow_pickle=False) as raw:
        g = len(dataset.graphs) // 2
        nodes, edges = raw["node_ptr"][g : g + 2], raw["edge_ptr"][g : g + 2]
        order = np.lexsort(raw["edge_index"][:, edges[0] : edges[1]])
        graph = dataset.graphs[g]
        assert graph.num_nodes == nodes[1] - nodes[0]
        assert np.array_equal(graph.edge_index, raw["edge_index"][:, edges[0] : edges[1]][:, order])
        if "edge_feat" in raw:
            bonds, atoms = raw["edge_feat"][edges[0] : edges[1]][order], raw["node_feat"][nodes[0] : nodes[1]]
            assert np.array_equal(graph.edge_attr, dense(blocks(bonds, BOND_FIELDS, "bonds")))
            assert np.array_equal(dense(graph.x), dense(blocks(atoms, ATOM_FIELDS, "atoms")))
        if "fold" in raw:
            test = dataset.splits["fold"][3].test
            assert np.array_equal(test, np.flatnonzero(raw["fold"] == 3))
            assert len(dataset.splits["fold"][3].train) == len(dataset.graphs) - len(test)


def test_counts_of_node_sets(real):
    expected = {  # nodes, entries of the adjacency, features, classes; train, val, test of the default split
        "cora": (2708, 10556, 1433, 7, 140, 500, 1000),
        "citeseer": (3327, 9104, 3703, 6, 120, 500, 1000),
        "actor": (7600, 53318, 932, 5, 3648, 2432, 1520),
        "tolokers": (11758, 1038000, 10, 2, 5879, 2939, 2940),
        "flickr-attr": (7575, 479476, 12047, 9, 180, 500, 1000),
    }
    for name, counts in expected.items():
        dataset = load_dataset(name)
        split = next(iter(dataset.splits.values()))[0]
        sizes = (len(split.train), len(split.val), len(split.test))
        graph = dataset.graph
        assert (graph.num_nodes, graph.num_edges, dataset.dim, int(dataset.y.max()) + 1, *sizes) == counts
    assert isinstance(load_dataset("cora").graph.x, Rows)
    assert set(load_dataset("cora").splits) == {"public", "geom"}
    assert load_dataset("minesweeper").metric == load_dataset("tolokers").metric == "auc"
    assert load_dataset("cora").metric == "accuracy"


def test_features_of_graph_sets(real):
    width = {"mutag": 7, "proteins": 3, "nci1": 37, "enzymes": 3, "imdb-binary": 136, "ogbg-molbace": 174}
    assert {name: load_dataset(name).dim for name in width} == width
    imdb = load_dataset("IMDB-BINARY")
    graph = imdb.graphs[7]
    assert imdb.from_degrees
    assert torch.equal(dense(graph.x).argmax(1), torch.bincount(graph.edge_index[1], minlength=graph.num_nodes))
    assert load_dataset("ogbg-molbace").graphs[0].edge_attr.size(1) == 13


def test_names_are_forgiving(real):
    for name in ("Cora", "chameleon_filtered", " CORA_ML "):
        assert load_dataset(name).name == name.strip().lower().replace("_", "-")
    for wrong, near in (("corra", "'cora'"), ("citations-mimi", "'citations-mini'"), ("mutagg", "'mutag'")):
        with pytest.raises(UserError, match=f"did you mean.*{near}"):
            load_dataset(wrong)


def test_a_name_like_no_other_points_at_the_list(bare):
    with pytest.raises(UserError) as caught:
        load_dataset("xyzzy")
    assert str(caught.value) == "unknown data set 'xyzzy'; see graphssl.list_datasets()"


def test_yes_no_labels_of_molecules_offer_no_protocol(real):
    assert load_dataset("ogbg-molbace").protocols == ()
    assert load_dataset("ogbg-molesol").protocols == ("graph-ridge",)


def test_the_door_knows_no_names():
    """What reads a user's graphs imports nothing that looks for data sets by name, which reads through it."""
    for module in (convert, files_module, download):
        assert "graphssl.data.named" not in Path(module.__file__).read_text()


def test_links_of_real_sets(real):
    dataset = load_dataset("Cora/link")
    assert (dataset.name, dataset.task, dataset.y) == ("cora/link", "link", None)
    (split,) = dataset.splits["link"]
    assert (split.train.size(1), split.val.size(1), split.test.size(1)) == (4488, 263, 527)
    polblogs = load_dataset("polblogs/link")  # its features are degrees: those of the training edges
    degree = torch.bincount(polblogs.graph.edge_index[1], minlength=polblogs.graph.num_nodes)
    assert torch.equal(dense(polblogs.graph.x).argmax(1), degree)
    with pytest.raises(UserError, match="only a set of one graph"):
        load_dataset("mutag/link")


def test_list(bare, monkeypatch):
    names = list_datasets()
    assert names == sorted(names)
    assert {"citations-mini", "citations-mini/link", "drugs-mini", "pubmed", "pubmed/link", "imdb-multi"} <= set(names)
    assert "drugs-mini/link" not in names
    assert "imdb-multi/link" not in names
    assert "my-own" not in names
    edges = np.array([[0, 1], [1, 0]])
    np.savez(bare / "My_Own.npz", edge_index=edges, x=np.eye(2))
    np.savez(bare / "molecules.npz", edge_index=edges, x=np.eye(2), node_ptr=[0, 2], edge_ptr=[0, 2])
    assert list_datasets("My_*", root=bare) == ["my-own", "my-own/link"]
    assert list_datasets("molecules*", root=bare) == ["molecules"]
    monkeypatch.setenv("GRAPHSSL_DATA", str(bare))
    assert load_dataset("my-own").graph.num_nodes == 2
    assert list_datasets("my*") == ["my-own", "my-own/link"]


def test_root_comes_first(bare, monkeypatch):
    for folder, width in (("root/node", 2), ("environment", 3), (".cache/graphssl", 4)):
        (bare / folder).mkdir(parents=True)
        np.savez(bare / folder / "cora.npz", edge_index=np.array([[0], [1]]), x=np.ones((2, width)))
    monkeypatch.setenv("GRAPHSSL_DATA", str(bare / "environment"))
    assert load_dataset("cora", root=bare / "root").dim == 2
    assert load_dataset("cora").dim == 3
    monkeypatch.delenv("GRAPHSSL_DATA")
    assert load_dataset("cora").dim == 4


@pytest.mark.parametrize("name", ["pubmed", "imdb-multi", "ogbn-arxiv", "wikics/link"])
def test_no_network(name, bare, monkeypatch):
    def offline(key, folder):
        raise OSError("Name or service not known")

    key = name.removesuffix("/link")
    monkeypatch.setitem(download.SOURCES, key, offline)
    with pytest.raises(UserError) as caught:
        load_dataset(name, root=bare / "mine")
    message = str(caught.value)
    assert "\n" not in message
    for place in (bare / "mine", bare / ".cache" / "graphssl"):
        assert str(place) in message
    for words in ("Name or service", f"{key}.npz", "GRAPHSSL_DATA"):
        assert words in message


def test_missing_package_is_named(bare, monkeypatch):
    def source(key, folder):
        raise ImportError("No module named 'ogb'")

    monkeypatch.setitem(download.SOURCES, "ogbn-arxiv", source)
    with pytest.raises(UserError, match="pip install ogb"):
        load_dataset("ogbn-arxiv")


def test_citations_mini(bare):
    dataset = load_dataset("citations-mini")
    graph = dataset.graph
    assert (graph.num_nodes, graph.num_edges, dataset.dim, int(dataset.y.max()) + 1) == (800, 2880, 500, 5)
    assert isinstance(graph.x, Rows)
    (split,) = dataset.splits["public"]
    assert torch.bincount(dataset.y[split.train]).tolist() == [20] * 5
    assert (len(split.val), len(split.test)) == (200, 500)
    source, target = graph.edge_index
    assert 0.75 < float((dataset.y[source] == dataset.y[target]).float().mean()) < 0.82
    check_splits(dataset)
    assert load_dataset("citations-mini/link").task == "link"


def test_drugs_mini(bare):
    dataset = load_dataset("drugs-mini")
    assert dataset.task == "graph"
    assert len(dataset.graphs) == len(dataset.item_names) == len(dataset.y) == 576
    assert dataset.y.is_floating_point()
    aspirin = dataset.graphs[dataset.item_names.index("aspirin")]
    assert (aspirin.num_nodes, aspirin.num_edges // 2) == (13, 13)  # C9H8O4, one ring
    assert aspirin.x.sum(0).tolist()[:3] == [9, 0, 4]  # C, N, O
    assert aspirin.edge_attr.sum(0).tolist() == [10, 4, 0, 12]  # single, double, triple, aromatic, both directions
    check_splits(dataset)
    check_sorted(dataset.batch(range(576)))
    assert list(dataset.splits) == ["random-8:1:1"]


def test_drugs_mini_against_rdkit(bare):
    rdkit = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    with open(Path(__file__).parents[2] / "datasets" / "drugs_mini.tsv") as table:
        smiles = dict(line.rstrip("\n").split("\t") for line in table.readlines()[1:])
    formulas = {  # from textbooks
        "imatinib": "C29H31N7O", "atorvastatin": "C33H35FN2O5", "morphine": "C17H19NO3", "sildenafil": "C22H30N6O4S",
        "dexamethasone": "C22H29FO5", "warfarin": "C19H16O4", "amoxicillin": "C16H19N3O5S", "caffeine": "C8H10N4O2",
        "ciprofloxacin": "C17H18FN3O3", "simvastatin": "C25H38O5", "doxycycline": "C22H24N2O8",
        "losartan": "C22H23ClN6O",
        "omeprazole": "C17H19N3O3S", "fluoxetine": "C17H18F3NO", "metformin": "C4H11N5", "zidovudine": "C10H13N5O4",
        "methotrexate": "C20H22N8O5", "amiodarone": "C25H29I2NO3", "cyclophosphamide": "C7H15Cl2N2O2P",
    }  # fmt: skip
    assert {name: CalcMolFormula(rdkit.MolFromSmiles(smiles[name])) for name in formulas} == formulas
    dataset = load_dataset("drugs-mini")
    for name in ("imatinib", "levothyroxine", "thiotepa"):
        molecule = rdkit.MolFromSmiles(smiles[name])
        graph = dataset.graphs[dataset.item_names.index(name)]
        assert graph.num_nodes == molecule.GetNumAtoms()
        assert graph.num_edges == 2 * molecule.GetNumBonds()


def test_origin_tells_where_a_set_comes_from(tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHSSL_DATA", raising=False)
    assert origin("citations-mini/link") == "ships"
    assert origin("ogbn-arxiv", root=tmp_path) == "a download"
    (tmp_path / "mine.npz").write_bytes(b"")
    assert origin("mine", root=tmp_path) == str(tmp_path)
