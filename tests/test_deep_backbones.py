"""Deep and transformer graph backbones: against PyG and plain loops, and what modifiers of an encoder's name do."""

import copy
import math
import warnings

import pytest
import torch
import torch_geometric.nn as pyg
from conftest import KINDS, F, generator, random_graph
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

import graphssl
from graphssl.backbones import MODIFIERS, GENConv, GINEConv, VirtualNode, backbone, encodings, modified
from graphssl.backbones.deep import Jump
from graphssl.backbones.gen import PreActivation
from graphssl.backbones.gps import GPSLayer
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import dense

ALL = ("gine", "gen", "gen+power+message-norm", "gps", "gine+virtual", "gin+virtual+jk-cat", "gat+walk", "gps+laplace")


def made(name, *, layers=2, width=8, seed=0, dim_in=F, **options):
    torch.manual_seed(seed)
    return backbone(name, dim_in, [width] * layers, heads=2, **options)


def shaken(module):
    """``module`` with other biases and scales than at its start."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return module.eval()


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


# convolutions and layers


def test_gine_equals_pyg():
    graph, conv = KINDS["molecules"](), shaken(GINEConv(F, 8, edge_dim=3))
    theirs = pyg.GINEConv(conv.mlp, train_eps=True, edge_dim=3).eval()
    theirs.lin.load_state_dict(conv.edge.state_dict())
    with torch.no_grad():
        theirs.eps.copy_(conv.eps)
    close(conv(graph, graph.x), theirs(graph.x, graph.edge_index, graph.edge_attr))


def gen_of_pyg(conv, norm="batch"):
    theirs = pyg.GENConv(
        8, 8, aggr=conv.aggregation, learn_t=True, learn_p=True, msg_norm=conv.scale is not None, learn_msg_scale=True,
        norm=norm, bias=True, edge_dim=3,
    ).eval()  # fmt: skip
    theirs.lin_edge.load_state_dict(conv.edge.state_dict())
    for at, part in ((0, conv.mlp[0]), (1, conv.mlp[1]), (4, conv.mlp[3])):
        theirs.mlp[at].load_state_dict(part.state_dict())
    with torch.no_grad():
        getattr(theirs.aggr_module, "t" if conv.aggregation == "softmax" else "p").copy_(conv.sharpness)
        if conv.scale is not None:
            theirs.msg_norm.scale.copy_(conv.scale)
    return theirs


@pytest.mark.parametrize("message_norm", [False, True])
@pytest.mark.parametrize("aggregation", ["softmax", "power"])
def test_gen_equals_pyg(aggregation, message_norm):
    graph = KINDS["molecules"]()
    conv = shaken(GENConv(8, edge_dim=3, aggregation=aggregation, message_norm=message_norm))
    layer = PreActivation(conv, 8, norm="layer").eval()
    h = torch.randn(graph.num_nodes, 8, generator=generator())
    theirs = pyg.DeepGCNLayer(gen_of_pyg(conv), layer.norm, layer.activation).eval()
    heard = graph.csr.degree > 0  # PyG's power mean of nothing is 1e-4
    close(layer(graph, h)[heard], theirs(h, graph.edge_index, graph.edge_attr)[heard])


@pytest.mark.parametrize("aggregation", ["softmax", "power"])
def test_what_nodes_hear_equals_a_loop(aggregation):
    graph = KINDS["odd"]()
    conv = GENConv(4, aggregation=aggregation)
    with torch.no_grad():
        conv.sharpness.fill_(1.7)
    said = torch.rand(graph.num_edges, 4, generator=generator()) + 0.1
    found = conv._hear_along(graph, said)
    for node in range(graph.num_nodes):
        rows = said[graph.edge_index[1] == node]
        if not len(rows):
            expected = torch.zeros(4)
        elif aggregation == "power":
            expected = rows.pow(1.7).mean(0).pow(1 / 1.7)
        else:
            weight = (1.7 * rows).exp()
            expected = (weight * rows).sum(0) / weight.sum(0)
        close(found[node], expected)
    found.sum().backward()
    assert conv.sharpness.grad.isfinite()


@pytest.mark.parametrize("aggregation", ["softmax", "power"])
def test_what_nodes_say_to_all_needs_no_row_an_edge(aggregation, graph):
    conv = GENConv(4, aggregation=aggregation)
    said = torch.rand(graph.num_nodes, 4, generator=generator()).mul_(5).add_(0.1).requires_grad_()
    found = []
    for hear, value in ((conv._hear, said), (conv._hear_along, said[graph.edge_index[0]])):
        heard = hear(graph, value)
        found += [heard, *torch.autograd.grad(heard.square().sum(), (said, conv.sharpness))]
    for one, two in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    heard = conv._hear(graph, 1e4 * said)  # beyond what an exponential takes
    heard.sum().backward()
    assert heard.isfinite().all()
    assert said.grad.isfinite().all()


def test_gps_equals_pyg():
    graph, layer = KINDS["molecules"](), shaken(GPSLayer(8, 2, edge_dim=3))
    conv = pyg.GINEConv(layer.conv.mlp, train_eps=True, edge_dim=3)
    conv.lin.load_state_dict(layer.conv.edge.state_dict())
    theirs = pyg.GPSConv(8, conv, heads=2).eval()
    with torch.no_grad():
        conv.eps.copy_(layer.conv.eps)
        theirs.attn.in_proj_weight.copy_(layer.attention.qkv.weight)
        theirs.attn.in_proj_bias.copy_(layer.attention.qkv.bias)
    theirs.attn.out_proj.load_state_dict(layer.attention.out.state_dict())
    theirs.mlp[0].load_state_dict(layer.mlp[0].state_dict())
    theirs.mlp[3].load_state_dict(layer.mlp[3].state_dict())
    for place in "123":
        getattr(theirs, f"norm{place}").module.load_state_dict(getattr(layer, f"norm{place}").state_dict())
    h = torch.randn(graph.num_nodes, 8, generator=generator())
    close(layer(graph, h), theirs(h, graph.edge_index, graph.batch, edge_attr=graph.edge_attr))


def test_a_virtual_node_hears_the_sum_of_its_nodes():
    graph, node = KINDS["molecules"](), shaken(VirtualNode([8, 8]))
    h = torch.randn(graph.num_nodes, 8, generator=generator())
    state = node.update(0, graph, h, node.begin(graph))
    expected = torch.stack([node.updates[0](node.first + h[graph.batch == b].sum(0)) for b in range(graph.num_graphs)])
    close(state, expected)


def test_jumps_join_all_layers():
    found = [torch.randn(5, 3, generator=generator(seed)) for seed in range(4)]
    close(Jump("max", [3] * 4)(found), torch.stack(found).max(0).values)
    close(Jump("sum", [3] * 4)(found), found[0] + found[1] + found[2] + found[3])
    cat = Jump("cat", [3] * 4)
    close(cat(found), cat.join(torch.cat(found, 1)))
    with pytest.raises(graphssl.UserError, match="choose jk-cat"):
        backbone("gcn+jk-max", F, [8, 4])


# what all of them keep


@pytest.mark.parametrize("edge_dim", [3, 0])
@pytest.mark.parametrize("name", ALL)
def test_batch_mates_and_what_fills_them_up_change_nothing(name, edge_dim):
    graph = KINDS["molecules"]()
    body = shaken(made(name, edge_dim=edge_dim, norm="batch"))
    together = body(graph, graph.x)
    mate = random_graph(50, 4, attributes=True)
    mates = Graph.stack([*graph.parts()[2:], mate.replace(x=100 * mate.x), graph.parts()[0]])
    close(body(mates, mates.x)[-7:], together[:7])
    for b, part in enumerate(graph.parts()):
        close(body(part, part.x), together[graph.batch == b])


@pytest.mark.parametrize("name", ALL)
def test_encoders_train_on_any_graph(name, graph, kind):
    body = made(name, norm="batch", dropout=0.2)
    body(graph, graph.x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in body.parameters())
    body.eval()
    codes = body(graph, graph.x)
    rows = torch.arange(graph.num_nodes) % 3 == 0
    close(body(graph, graph.x, rows), codes[rows])
    *_, last = body.walk(graph, graph.x)
    assert torch.equal(last, codes)
    assert Encoder(body, read="all").eval()(graph).shape == (graph.num_nodes, 16)
    if kind == "words":
        close(body(graph, dense(graph.x)), codes)


@pytest.mark.parametrize("name", ["gin", "gine", "gen", "gps"])
def test_edges_that_lack_attributes_are_told(name):
    graph = KINDS["citation"]()
    with pytest.raises(UserError, match=r"3 attributes.*give edge_attr"):
        made(name, edge_dim=3)(graph, graph.x)


# names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gne+walk", "unknown encoder 'gne'; did you mean"),
        ("gine+virtuel", "unknown modifier of an encoder 'virtuel'; did you mean 'virtual'"),
        ("transformer+virtual", r"a transformer has no '\+virtual', which is for gat"),
        ("gine+power", r"a gine has no '\+power', which is for gen"),
        ("gin+jk-max+jk-cat", "two ways to join layers"),
        ("gin+walk+walk", "twice"),
        ("gin+", "unknown modifier"),
    ],
)
def test_names_that_mean_nothing_are_refused(name, words):
    with pytest.raises(UserError, match=words):
        backbone(name, F, [8])


def test_every_modifier_is_told_of():
    assert all(f'+{one}"' in graphssl.list_encoders.__doc__ for one in MODIFIERS)
    assert modified("gen+power+checkpoint") == ("gen", ("power", "checkpoint"))


@pytest.mark.parametrize("name", ["gen", "gps"])
def test_decoders_that_end_in_a_norm_are_refused(name):
    with pytest.raises(UserError, match=r"one width throughout.*choose one of"):
        backbone(name, F, [8], bare_end=True)


def test_a_gine_decodes():
    graph, body = KINDS["molecules"](), backbone("gine", F, [5], bare_end=True, edge_dim=3)
    assert body(graph, graph.x).shape == (graph.num_nodes, 5)
    assert not any(isinstance(part, nn.PReLU) for part in body.layers[0].children())


def molecules_of_pyg():
    return [Data(x=torch.rand(n, 3), edge_index=random_graph(n, n).edge_index) for n in (9, 12, 7, 10)]


def test_recipes_take_modified_names():
    data = molecules_of_pyg()
    for method, encoder in (
        ("vgae", "gine+virtual"),
        ("graphmae", "gen+jk-cat"),
        ("s2gae", "gcn+walk"),
        ("mae", "transformer+laplace"),
    ):
        settings = {"layers": 2} if method != "vgae" else {}
        run = graphssl.pretrain(
            data, method, encoder=encoder, width=8, epochs=1, batch_size=2, progress=False, **settings
        )
        assert run.embed().isfinite().all()


# depth


def spread(codes):
    """The effective rank of centred codes: the exponential of the entropy of their singular values."""
    share = torch.linalg.svdvals(codes - codes.mean(0))
    share = share / share.sum()
    return math.exp(-(share * share.clamp(min=1e-12).log()).sum())


def test_28_layers_neither_vanish_nor_collapse():
    graph = KINDS["citation"]()
    body = made("gen+checkpoint", layers=28, width=16, norm="batch", activation="relu")
    codes = body(graph, graph.x)
    (codes * torch.randn(codes.shape, generator=generator())).sum().backward()
    sizes = [torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item() for layer in body.layers]
    assert all(math.isfinite(size) for size in sizes)
    assert 0.2 < sizes[0] / sizes[-1] < 50
    plain = made("gcn", layers=28, width=16, activation="relu")
    assert spread(codes.detach()) > 5 > spread(plain(graph, graph.x).detach())


CHECKPOINTED = ("gin", "gat", "gine+virtual", "gen", "gen+power", "gps+laplace", "transformer", "sparse-transformer")


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_checkpoints_change_neither_gradients_nor_draws_nor_statistics(name):
    graph, options = KINDS["molecules"](), {"dropout": 0.3, "attention_dropout": 0.2, "norm": "batch"}
    one, two = (made(full, **options) for full in (name, f"{name}+checkpoint"))
    found = []
    for body in (one, two):
        torch.manual_seed(1)
        loss = body(graph, graph.x).square().sum()
        if body is two:
            torch.rand(3)  # draws between forward and backward belong to others
        loss.backward(retain_graph=True)
        grads = [p.grad.clone() for p in body.parameters()]
        loss.backward()
        for p, grad in zip(body.parameters(), grads, strict=True):
            torch.testing.assert_close(p.grad, 2 * grad, rtol=1e-6, atol=1e-6)
        found.append((loss.detach(), grads, [*body.buffers()]))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=1e-6)
    assert all(map(torch.equal, found[0][2], found[1][2]))


def held(name, layers, graph, width=32):
    """Bytes that a forward leaves held for the backward."""
    body = made(name, layers=layers, width=width, norm="batch")
    body(graph, graph.x)  # what is made once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        out = body(graph, graph.x)
    del out
    return sum(event.self_cpu_memory_usage for event in seen.events())


@pytest.mark.parametrize("name", ["gen", "gps"])
def test_checkpoints_hold_layers_inputs_only(name):
    graph = random_graph(300, 0)
    one = 4 * graph.num_nodes * 32
    with_it, without = (
        (held(full, 9, graph) - held(full, 3, graph)) / 6 / one for full in (f"{name}+checkpoint", name)
    )
    assert 0.9 < with_it < 1.2
    assert without > 8


# encodings


def edges_of(*pairs):
    edges = torch.tensor(pairs).T
    return torch.cat([edges, edges.flip(0)], dim=1)


def ring(n, at=0):
    return [(at + i, at + (i + 1) % n) for i in range(n)]


def bare(pairs):
    """A graph of nodes that are all alike."""
    edges = edges_of(*pairs)
    return Graph.build(torch.ones(int(edges.max()) + 1, F), edges)


PAIRS = {
    "triangles, hexagon": (bare(ring(3) + ring(3, 3)), bare(ring(6))),
    "decalin, bicyclopentyl": (
        bare([*ring(10), (0, 5)]), bare([*ring(5), *ring(5, 5), (0, 5)])
    ),
    "4-regular": (
        bare([*ring(8), *((i, (i + 2) % 8) for i in range(8))]), bare([(i, j) for i in range(4) for j in range(4, 8)])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["gps+walk", "gps+laplace", "gine+walk", "gine+laplace", "gine"])
@pytest.mark.parametrize("pair", PAIRS)
def test_graphs_that_1_wl_takes_for_one(pair, name):
    body = shaken(made(name, layers=3))
    one, two = (Encoder(body).eval().of_graphs(graph) for graph in PAIRS[pair])
    apart = (one - two).abs().max()
    assert apart > 1e-4 if "+" in name else apart < 1e-6


@pytest.mark.parametrize("kind", ["citation", "molecules", "star", "no-edges"])
def test_return_probabilities_equal_pyg_and_powers(kind, monkeypatch):
    graph = KINDS[kind]()
    found = encodings.return_probabilities(graph)
    csr, _ = encodings.simple(graph)
    walk = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    walk[csr.row, csr.col] = 1 / csr.degree[csr.row].double()
    powers = [torch.matrix_power(walk, k).diagonal() for k in range(1, 17)]
    torch.testing.assert_close(found.double(), torch.stack(powers, 1), rtol=1e-5, atol=1e-6)
    if graph.num_edges:
        edges = torch.stack([csr.col, csr.row])
        theirs = AddRandomWalkPE(16)(Data(edge_index=edges, num_nodes=graph.num_nodes)).random_walk_pe
        close(found, theirs)
    monkeypatch.setattr(encodings, "ENTRIES", 3 * graph.num_nodes)  # a few nodes of each graph at a time
    close(encodings.return_probabilities(graph), found)


def test_eigenvectors_are_those_of_the_normalised_laplacian():
    graph = random_graph(25, 3)
    vectors, values, there = encodings.spectrum(graph)
    csr, weight = encodings.simple(graph)
    laplacian = torch.diag((csr.degree > 0).double())
    laplacian[csr.row, csr.col] -= weight
    all_values = torch.linalg.eigvalsh(laplacian)
    assert there.all()
    close(values.double(), all_values[1:9].expand(25, -1))
    for k in range(8):
        if min(all_values[k + 1] - all_values[k], all_values[k + 2] - all_values[k + 1]) > 1e-6:
            close(laplacian @ vectors[:, k].double(), values[0, k].double() * vectors[:, k].double())
    close(vectors.square().mean(0), torch.ones(8))


def test_signs_of_eigenvectors_change_nothing_and_those_of_entries_do():
    graph, layer = random_graph(25, 3), shaken(encodings.Laplace(8))
    codes = layer(graph)
    vectors, values, there = graph.remember("encodings.laplace", encodings.spectrum, shared=True)

    def again(vectors):
        other = graph.replace(edge_index=graph.edge_index.clone())
        other.remember("encodings.laplace", lambda _: (vectors, values, there), shared=True)
        return layer(other)

    flips = torch.tensor([1.0, -1, -1, 1, -1, 1, 1, -1])
    close(again(vectors * flips), codes)
    assert not torch.allclose(again(vectors.abs()), codes, atol=1e-3)


@pytest.mark.parametrize("encoding", ["walk", "laplace"])
@pytest.mark.parametrize("kind", ["molecules", "star", "odd", "directed", "no-edges", "one-node"])
def test_encodings_go_by_undirected_simple_edges_and_are_renumbered_with_nodes(kind, encoding):
    """Also where eigenvalues coincide, of stars and isolated nodes."""
    graph, layer = KINDS[kind](), shaken(encodings.__dict__[encoding.capitalize()](8))
    codes = layer(graph)
    order = torch.rand(graph.num_nodes, generator=generator(9)).argsort()
    order = order[graph.batch[order].argsort(stable=True)]
    moved = order.argsort()[graph.edge_index]
    close(layer(graph.replace(edge_index=moved)), codes[order])
    loops = torch.arange(graph.num_nodes).expand(2, -1)
    more = torch.cat([graph.edge_index, graph.edge_index.flip(0), loops], dim=1)
    close(layer(graph.replace(edge_index=more)), codes)


def test_encodings_see_only_edges_that_are_shown():
    graph, layer = KINDS["citation"](), encodings.Walk(8)
    whole, keep = layer(graph), torch.arange(graph.num_edges) % 3 > 0
    seen = layer(graph.keep_edges(keep))
    assert not torch.allclose(seen, whole)
    close(seen, layer(Graph.build(graph.x, graph.edge_index[:, keep])))


def test_eigenvectors_of_large_graphs_are_refused():
    graph = Graph.build(torch.ones(2001, 1), torch.empty(2, 0, dtype=torch.long))
    with pytest.raises(UserError, match=r"up to 2000 nodes, but this has 2001; choose '\+walk'"):
        encodings.Laplace(4)(graph)


def test_random_walks_on_large_graphs_are_refused(monkeypatch):
    path = torch.arange(40_000)
    graph = Graph.build(torch.ones(40_000, 1), torch.stack([path[:-1], path[1:]]))
    with pytest.raises(UserError, match=r"40000 nodes and 39999 edges, .* would take minutes; leave out '\+walk'"):
        encodings.Walk(4)(graph)
    small = KINDS["molecules"]()
    edges, most = encodings.simple(small)[0].col.numel(), max(small.sizes)
    monkeypatch.setattr(encodings, "DEAREST", (edges + encodings.NODE * small.num_nodes) * most)
    assert encodings.Walk(4)(small).isfinite().all()
    monkeypatch.setattr(encodings, "DEAREST", encodings.DEAREST - 1)
    with pytest.raises(UserError, match="would take minutes"):
        encodings.Walk(4)(KINDS["molecules"]())


# pooling


def test_attention_pools_as_pyg_and_starts_as_the_mean():
    graph = KINDS["molecules"]()
    torch.manual_seed(0)
    encoder = Encoder(backbone("gine", F, [8, 8]), read="all", pool="attention").eval()
    codes = encoder(graph)
    close(encoder.of_graphs(graph), Encoder(encoder.backbone, read="all").eval().of_graphs(graph))
    with torch.no_grad():
        encoder.gate.weight.normal_()
    theirs = pyg.aggr.AttentionalAggregation(copy.deepcopy(encoder.gate))
    close(encoder.pool(graph, codes), theirs(codes, graph.batch))
    encoder.of_graphs(graph).sum().backward()
    assert encoder.gate.weight.grad.any()


def test_attention_pools_in_recipes():
    run = graphssl.pretrain(
        molecules_of_pyg(), "infograph", pool="attention", width=4, layers=2, epochs=3, progress=False
    )
    assert run.encoder.gate.weight.any()
    assert run.embed().shape == (4, 8)


def warned(method, **settings):
    """What a short run with attention pooling warns of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        graphssl.pretrain(molecules_of_pyg(), method, pool="attention", width=4, layers=2, progress=False, **settings)
    return [str(one.message) for one in said if "pool=" in str(one.message)]


def test_pretraining_that_leaves_attention_pooling_as_it_was_says_so():
    (words,) = warned("dgi", epochs=1)
    assert words.startswith("dgi trains codes of nodes, not pool='attention', which is still the mean")
    assert not warned("dgi", epochs=0)
    for method in ("graphcl", "infograph", "simgrace", "simsiam"):
        assert not warned(method, epochs=1), method
