"""Every backbone against PyG's layer with the same weights, and its shortcuts against the long way."""

import pytest
import torch
import torch_geometric.nn as pyg
from conftest import KINDS, F
from torch import nn

from graphssl.backbones import CONVS, DEEP, TRANSFORMERS, Backbone, backbone, foreign, list_encoders
from graphssl.backbones.base import ACTIVATIONS, NORMS
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import Rows, dense


def copied(conv, name, dim):
    """PyG's layer with the weights of ours."""
    with torch.no_grad():
        if name == "gat":
            theirs = pyg.GATConv(F, dim // 2, 2, add_self_loops=False)
            theirs.lin.weight.copy_(conv.linear.weight)
            theirs.att_src.copy_(conv.source)
            theirs.att_dst.copy_(conv.target)
            theirs.bias.copy_(conv.bias)
        elif name == "gcn":
            theirs = pyg.GCNConv(F, dim)
            theirs.lin.weight.copy_(conv.linear.weight)
            theirs.bias.copy_(conv.bias)
        elif name == "sage":
            theirs = pyg.SAGEConv(F, dim)
            theirs.lin_r.weight.copy_(conv.own.weight)
            theirs.lin_l.weight.copy_(conv.neighbours.weight)
            theirs.lin_l.bias.copy_(conv.own.bias)
        elif name == "gin":
            theirs = pyg.GINConv(nn.Sequential(conv.first, conv.rest))
        else:
            theirs = conv.linear
    return theirs


@pytest.mark.parametrize("name", CONVS)  # tests/test_transformer.py does so for transformers
def test_layer_equals_pyg(name, graph, kind):
    body = backbone(name, F, [8], heads=2, activation="none").eval()
    conv = body.layers[0].conv
    with torch.no_grad():
        for p in conv.parameters():
            p.add_(0.1 * torch.randn_like(p))
    theirs = copied(conv, name, 8).eval()
    if name == "mlp":
        expected = theirs(dense(graph.x))
    elif name == "gcn":
        expected = theirs(dense(graph.x), graph.edge_index, graph.edge_weight)
    elif graph.edge_weight is not None and name in ("gin", "sage"):
        pytest.skip("PyG's layer takes no edge weights")
    else:
        expected = theirs(dense(graph.x), graph.edge_index)
    torch.testing.assert_close(body(graph, graph.x), expected, rtol=1e-4, atol=1e-5)


def test_gin_with_edge_attributes_equals_pyg():
    graph = KINDS["molecules"]()
    conv = backbone("gin", F, [8], edge_dim=3).eval().layers[0].conv
    theirs = pyg.GINEConv(nn.Sequential(conv.first, conv.rest), edge_dim=3).eval()
    theirs.lin.load_state_dict(conv.edge.state_dict())
    expected = theirs(graph.x, graph.edge_index, graph.edge_attr)
    torch.testing.assert_close(conv(graph, graph.x), expected, rtol=1e-4, atol=1e-5)
    other = conv(graph.replace(edge_attr=graph.edge_attr.flip(0)), graph.x)
    assert not torch.allclose(other, expected)
    with pytest.raises(UserError, match="3 attributes"):
        conv(graph.replace(edge_attr=None), graph.x)


def test_a_decoder_of_few_columns_keeps_its_inside_wide():
    layer = backbone("gin", 32, [4], bare_end=True).layers[0]
    assert (layer.conv.first.out_features, layer.dim) == (32, 4)


@pytest.mark.parametrize("widths", [[8], [8, 16], [8, 40]])
@pytest.mark.parametrize("name", list_encoders())
def test_rows_asked_for_are_rows_of_all(name, widths, graph):
    one_width = name in (*DEEP, *TRANSFORMERS)
    if one_width and len(set(widths)) > 1:
        pytest.skip("it has one width")
    body = backbone(name, F, widths, norm="layer", residual=True, bare_end=not one_width).eval()
    rows = torch.arange(graph.num_nodes) % 3 == 0
    torch.testing.assert_close(body(graph, graph.x, rows), body(graph, graph.x)[rows], rtol=1e-4, atol=1e-5)


def test_attention_that_widens_equals_the_plain_way():
    graph = KINDS["citation"]()
    conv = backbone("gat", F, [40], bare_end=True).eval().layers[0].conv
    theirs = pyg.GATConv(F, 40, 1, add_self_loops=False).eval()
    with torch.no_grad():
        theirs.lin.weight.copy_(conv.linear.weight)
        theirs.att_src.copy_(conv.source)
        theirs.att_dst.copy_(conv.target)
    torch.testing.assert_close(conv(graph, graph.x), theirs(graph.x, graph.edge_index), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_norm_and_activation_trains_on_one_node(norm, activation):
    graph = KINDS["one-node"]()
    body = backbone("gcn", F, [8, 8], norm=norm, activation=activation, residual=True, dropout=0.1).train()
    out = body(graph, graph.x)
    out.sum().backward()
    assert out.isfinite().all()


def test_walk_ends_where_forward_does():
    graph = KINDS["citation"]()
    body = backbone("gcn", F, [8, 6, 4])
    steps = list(body.walk(graph, graph.x))
    assert [s.size(1) for s in steps] == [8, 6, 4]
    torch.testing.assert_close(steps[-1], body(graph, graph.x))


class Theirs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = pyg.GCNConv(F, 5)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index)


def test_a_foreign_module_is_a_backbone():
    module = Theirs()
    body = foreign(module, F)
    assert isinstance(body, Backbone)
    assert body.dim == 5
    for kind in ("citation", "words"):
        graph = KINDS[kind]()
        torch.testing.assert_close(body(graph, graph.x), module(dense(graph.x), graph.edge_index))


@pytest.mark.parametrize("module", [nn.Linear(F, 3), pyg.GCNConv(F + 1, 3), nn.Bilinear(F, F, 3)])
def test_a_foreign_module_that_cannot_be_called_is_refused(module):
    with pytest.raises(UserError, match=r"encoder\(x, edge_index\)"):
        foreign(module, F)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="did you mean 'sage'"):
        backbone("sag", F, [8])
    with pytest.raises(UserError, match="did you mean 'batch'"):
        backbone("gcn", F, [8], norm="bach")


def test_adjacency_survives_replace_only_where_it_holds():
    graph = KINDS["citation"]()
    csr = graph.csr
    assert graph.replace(x=graph.x * 2).csr is csr
    kept = graph.keep_edges(torch.arange(graph.num_edges) % 2 == 0)
    assert kept.csr.nnz == kept.num_edges
    assert isinstance(kept, Graph)


def test_facts_of_edges_hold_for_any_content_and_others_for_this_graph_alone():
    graph, calls = KINDS["molecules"](), []

    def count(graph):
        calls.append(graph.num_edges)
        return len(calls)

    later = graph.replace(x=graph.x * 2)
    assert [later.remember("edges", count, shared=True), graph.remember("edges", count, shared=True)] == [1, 1]
    others = (
        graph.keep_edges(torch.arange(graph.num_edges) % 2 == 0),
        graph.keep_nodes(torch.arange(graph.num_nodes) > 0),
        graph.replace(edge_index=graph.edge_index.clone()),
        graph.replace(batch=graph.batch * 0, sizes=(graph.num_nodes,)),
    )
    assert [other.remember("edges", count, shared=True) for other in others] == [2, 3, 4, 5]
    assert graph.remember("own", count) != later.remember("own", count)


def test_parts_are_what_stack_takes():
    for kind, make in KINDS.items():
        graph = make()
        parts = graph.parts()
        assert [part.sizes for part in parts] == [(size,) for size in graph.sizes], kind
        again = Graph.stack(parts)
        for field in ("edge_index", "batch", "edge_attr", "edge_weight", "pos"):
            one, two = getattr(graph, field), getattr(again, field)
            assert two is None if one is None else torch.equal(one, two), (kind, field)
        assert torch.equal(dense(graph.x), dense(again.x)), kind


def test_parts_carry_rows_items_and_sparse_content():
    graph, words = KINDS["molecules"](), Graph.stack([KINDS["words"](), KINDS["words"]()])
    graph = graph.replace(rows=torch.arange(graph.num_nodes) + 5, items=torch.tensor([3, 1, 4, 0]))
    parts = graph.parts()
    assert [part.items.tolist() for part in parts] == [[3], [1], [4], [0]]
    assert torch.equal(torch.cat([part.rows for part in parts]), graph.rows)
    assert parts[1].num_edges == 0
    one, two = words.parts()
    assert isinstance(two.x, Rows)
    assert torch.equal(dense(one.x), dense(two.x))
    assert torch.equal(one.edge_index, two.edge_index)


def test_a_graph_without_nodes_has_a_part_of_its_own():
    graph = KINDS["molecules"]()
    without = graph.keep_nodes(graph.batch != 2)
    assert [(part.num_nodes, part.num_edges > 0) for part in without.parts()] == [
        (7, True), (1, False), (0, False), (30, True)
    ]  # fmt: skip
