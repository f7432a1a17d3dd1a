"""Codes made layer by layer in chunks of nodes are those of the whole graph."""

import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import graphssl
from graphssl import embed as by_layer
from graphssl import pretrained
from graphssl.backbones import backbone, evaluating, foreign
from graphssl.backbones.base import BatchNorm
from graphssl.cli import main
from graphssl.data import Dataset, Transform, convert_to_folder, to_dataset
from graphssl.embed import embed_by_layer, fits_whole, whole_only
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import dense
from tests.conftest import KINDS, random_graph
from tests.data.test_stored import ONE, once

NAMES = ("gcn", "gat", "gin", "gine", "sage", "mlp", "gen", "gen+power+message-norm", "gin+jk-cat", "gcn+jk-max")


def encoder_of(name: str, dim_in: int, *, read: str = "last", unit: bool = False, **options) -> Encoder:
    """An encoder with statistics of its norms as after training."""
    torch.manual_seed(0)
    made = Encoder(backbone(name, dim_in, [8, 8, 8], **options), read, unit=unit)
    for part in made.modules():
        if isinstance(part, BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return made


@torch.no_grad()
def whole(encoder: Encoder, graph: Graph, transform=lambda graph: graph) -> torch.Tensor:
    with evaluating(encoder):
        return encoder(transform(graph))


def stored_of(graph: Graph, folder) -> graphssl.data.Stored:
    return convert_to_folder(graph, folder, order="given", progress=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ONE)
def test_codes_are_those_of_the_whole_graph(name, kind, tmp_path):
    graph = KINDS[kind]()
    encoder = encoder_of(
        name, graph.x.size(1), dropout=0.5, attention_dropout=0.5, heads=2, norm="batch", residual=True
    )
    assert whole_only(encoder) == ""
    expected = whole(encoder, graph)
    encoder.train()
    for chunk in (1, 7, graph.num_nodes, None):
        found = embed_by_layer(encoder, graph, lambda graph: graph, device="cpu", chunk=chunk)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    stored, simple = stored_of(graph, tmp_path / "out"), once(graph)
    found = embed_by_layer(encoder, stored, Transform(), device="cpu", chunk=5)
    torch.testing.assert_close(found, whole(encoder, simple), rtol=1e-5, atol=1e-5)
    assert encoder.training


@pytest.mark.parametrize("name", ["gin", "gine", "gen", "gps"])
def test_edge_attributes_and_weights(name, tmp_path):
    graph = once(random_graph(40, 1, attributes=True, weights=True))
    encoder = encoder_of(name, 12, edge_dim=3, norm="layer")
    stored = stored_of(graph, tmp_path / "out")
    if name == "gps":
        assert "GPSLayer may look at the whole graph" in whole_only(encoder)
        return
    for source in (graph, stored):
        found = embed_by_layer(encoder, source, Transform(), device="cpu", chunk=7)
        torch.testing.assert_close(found, whole(encoder, graph), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("read", ["last", "all"])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("name", ["gcn", "gen", "sage+jk-sum"])
def test_all_that_an_encoder_reads(read, unit, name, tmp_path):
    graph = once(random_graph(40, 2, weights=True))
    encoder = encoder_of(name, 12, read=read, unit=unit)
    expected = whole(encoder, graph)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for chunk in (1, 7, 40):
        found = embed_by_layer(encoder, graph, Transform(), device="cpu", chunk=chunk)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        mapped = embed_by_layer(
            encoder, graph, Transform(), device="cpu", chunk=chunk, out=tmp_path / "codes.npy", order=order
        )
        assert isinstance(mapped, np.memmap)
        torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "codes.npy"))[order], expected)


@pytest.mark.parametrize("name", ["gcn", "gat", "gin"])
@pytest.mark.parametrize("kind", ["citation", "words", "weighted", "odd"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_transforms_are_applied_to_chunks(name, kind, dtype, monkeypatch, tmp_path):
    graph = once(KINDS[kind]())
    graph = graph.replace(x=graph.x.abs() if kind != "words" else graph.x)
    encoder = encoder_of(name, 12)
    stored = convert_to_folder(graph, tmp_path / "out", dtype=dtype, order="given", undirected=True, progress=False)
    monkeypatch.setattr(by_layer, "BLOCK", 100)
    for transform in (
        Transform(self_loops=True), Transform(row_normalize=True), Transform(standardize=True),
        Transform(True, True, True, True),
    ):  # fmt: skip
        found = embed_by_layer(encoder, stored, transform, device="cpu", chunk=7)
        torch.testing.assert_close(found, whole(encoder, stored.graph(), transform), rtol=1e-4, atol=1e-5)
        sparse = KINDS[kind]()
        found = embed_by_layer(encoder, sparse, transform, device="cpu", chunk=7)
        torch.testing.assert_close(found, whole(encoder, sparse, transform), rtol=1e-4, atol=1e-5)


def test_little_memory_makes_small_chunks_and_files(monkeypatch, tmp_path):
    graph = once(random_graph(200, 3))
    stored = stored_of(graph, tmp_path / "out")
    seen = []
    cut = by_layer.Chunks.cut
    monkeypatch.setattr(
        by_layer.Chunks, "cut", lambda *a, **k: (seen.append(part[1] - part[0]) or part for part in cut(*a, **k))
    )
    monkeypatch.setattr(by_layer, "free_bytes", lambda device: 40_000)
    for name in ("gcn", "mlp", "gen"):
        encoder = encoder_of(name, 12)
        seen.clear()
        found = embed_by_layer(encoder, stored, Transform(), device="cpu")
        assert len(seen) > 3 * 3
        assert max(seen) > 1
        torch.testing.assert_close(found, whole(encoder, graph), rtol=1e-5, atol=1e-5)
    assert not fits_whole(encoder, 200, graph.num_edges, torch.device("cpu"))


def test_what_looks_at_the_whole_graph_says_so(tmp_path):
    class Own(nn.Module):
        def forward(self, x, edge_index):
            return x

    reasons = {
        "transformer": "a Transformer looks at all nodes at once",
        "gin+virtual": "a virtual node hears all nodes",
        "gin+laplace": "Laplace encodings are of the whole graph",
        "gcn+walk": "Walk encodings are of the whole graph",
    }
    for name, reason in reasons.items():
        assert whole_only(encoder_of(name, 12)) == reason
    own = Encoder(foreign(Own(), 12))
    assert whole_only(own) == "a Own may look at the whole graph"
    directed = stored_of(KINDS["directed"](), tmp_path / "out")
    with pytest.raises(UserError, match="a Own may look at the whole graph; embed the graph in memory"):
        embed_by_layer(own, directed, Transform(), device="cpu")
    with pytest.raises(UserError, match="graphssl convert --undirected"):
        embed_by_layer(encoder_of("gcn", 12), directed, Transform(undirected=True), device="cpu")
    with pytest.raises(UserError, match="a function may look at the whole graph"):
        embed_by_layer(encoder_of("gcn", 12), directed, lambda graph: graph, device="cpu")
    with pytest.raises(ValueError, match="never"):  # and leaves the encoder as it was
        embed_by_layer(encoder_of("gcn", 12), random_graph(5, 0), never, device="cpu")


def never(graph: Graph) -> Graph:
    raise ValueError("never")


# Through a run


@pytest.fixture(scope="module")
def run():
    graph = once(random_graph(60, 0))
    data = to_dataset(graph).replace(y=torch.arange(60) % 3, node_names=tuple(f"n{i}" for i in range(60)))
    return data, graphssl.pretrain(data, "graphmae", epochs=2, width=16, progress=False)


def test_a_run_embeds_a_folder(run, tmp_path):
    data, trained = run
    expected = trained.embed()
    stored = convert_to_folder(data, tmp_path / "graph", progress=False)
    found = to_dataset(tmp_path / "graph")
    rows = torch.tensor([int(name[1:]) for name in found.node_names])
    torch.testing.assert_close(trained.embed(found), expected[rows], rtol=1e-5, atol=1e-5)
    assert found.graphs.made == [None]
    assert torch.equal(stored.order.long(), rows)
    for ending in ("npy", "csv", "parquet"):
        plain, _ = trained.export(tmp_path / f"plain.{ending}")
        path, shape = trained.export(tmp_path / f"codes.{ending}", tmp_path / "graph")
        assert shape == (60, 16)
        names = None if ending == "npy" else [f"n{i}" for i in range(60)]
        for one in (plain, path):
            codes, given = read_codes(one)
            assert given == names
            torch.testing.assert_close(codes, expected, rtol=1e-5, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "codes.csv", "codes.npy", "codes.parquet", "graph", "plain.csv", "plain.npy", "plain.parquet"
    ]  # fmt: skip


def read_codes(path) -> tuple[torch.Tensor, list[str] | None]:
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path)), None
    if path.suffix == ".csv":
        head, *lines = [line.split(",") for line in path.read_text().splitlines()]
        assert head[:2] == ["node", "code_0"]
        return torch.tensor([[float(number) for number in line[1:]] for line in lines]), [line[0] for line in lines]
    table = pq.read_table(path)
    names, *columns = table.columns
    return torch.tensor(np.stack([column.to_numpy() for column in columns], 1)), names.to_pylist()


def test_without_names_rows_are_numbered_as_they_came(tmp_path):
    graph = once(random_graph(60, 0))
    trained = graphssl.pretrain(graph, "graphmae", epochs=1, width=16, progress=False)
    convert_to_folder(graph, tmp_path / "graph", progress=False)
    trained.save(tmp_path / "run")
    for ending in ("npy", "csv", "parquet"):
        file = tmp_path / f"codes.{ending}"
        words = ["embed", str(tmp_path / "run"), "--to", str(file), "--dataset", str(tmp_path / "graph")]
        assert main(words) == 0
        codes, names = read_codes(file)
        assert names is None or list(map(int, names)) == list(range(60))
        torch.testing.assert_close(codes, trained.embed(), rtol=1e-5, atol=1e-5)
        assert main(words) == 2


def test_the_present_path_is_left_alone_where_the_graph_fits(run, monkeypatch):
    data, trained = run
    monkeypatch.setattr(pretrained, "embed_by_layer", never)
    graph = trained.plan.transform(data.graph)
    assert torch.equal(trained.embed(), whole(trained.encoder, graph))


def test_a_large_graph_in_memory_goes_layer_by_layer(run, monkeypatch):
    _, trained = run
    expected, asked = trained.embed(), []
    monkeypatch.setattr(by_layer, "free_bytes", lambda device: asked.append(device) or 10_000)
    torch.testing.assert_close(trained.embed(), expected, rtol=1e-5, atol=1e-5)
    assert len(asked) > 1


def test_an_encoder_of_the_whole_graph_reads_the_folder_into_memory(tmp_path):
    graph = once(random_graph(40, 0))
    trained = graphssl.pretrain(graph, "graphmae", encoder="gin+virtual", epochs=1, width=16, progress=False)
    convert_to_folder(graph, tmp_path / "graph", progress=False)
    found = to_dataset(tmp_path / "graph")
    torch.testing.assert_close(trained.embed(found), trained.embed()[found.stored.order.long()], rtol=1e-5, atol=1e-5)
    path, _ = trained.export(tmp_path / "codes.npy", found)
    torch.testing.assert_close(torch.from_numpy(np.load(path)), trained.embed(), rtol=1e-5, atol=1e-5)


SMALL = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from graphssl import embed as by_layer
from graphssl.backbones import backbone
from graphssl.data import Stored, Transform
from graphssl.embed import embed_by_layer
from graphssl.encoder import Encoder
torch.set_num_threads(1)
folder, room = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
encoder = Encoder(backbone("gcn", 512, [16, 16], norm="batch"))
torch.randn(4, 4) @ torch.randn(4, 4)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + room, used + room))
try:
    np.ones(80 * 2**20, np.int8)
    sys.exit("the limit does not hold")
except MemoryError:
    pass
by_layer.free_bytes = lambda device: room // 2
stored, transform = Stored.open(folder / "out"), Transform(standardize=True)
embed_by_layer(encoder, stored, transform, device="cpu", out=folder / "codes.npy")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it bounds memory as Linux does")
def test_features_need_not_fit_in_memory(tmp_path):
    N, F = 40_000, 512  # 80 MB
    edges = torch.randint(N, (2, 100_000), generator=torch.Generator().manual_seed(0))
    graph = Graph.build(torch.randn(N, F, generator=torch.Generator().manual_seed(1)), edges)
    stored = convert_to_folder(graph, tmp_path / "out", progress=False)
    found = subprocess.run(
        [sys.executable, "-c", SMALL, tmp_path, str(64 * 2**20)], capture_output=True, text=True, check=False,
        env={**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    torch.manual_seed(0)
    encoder = Encoder(backbone("gcn", F, [16, 16], norm="batch"))
    expected = whole(encoder, stored.graph(), Transform(standardize=True))
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "codes.npy")), expected, rtol=1e-4, atol=1e-5)
    assert dense(expected).shape == (N, 16)
    assert Dataset.of_stored(stored).num_nodes == N
