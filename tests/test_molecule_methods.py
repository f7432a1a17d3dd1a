"""Methods meant for molecules: attribute masking, context prediction, Graph-JEPA, chemical views, GraphMAE on bonds."""

import dataclasses
import math
import warnings

import networkx as nx
import pytest
import torch
from conftest import EDGE_FIELDS, FIELDS, KINDS, METHODS, F, classes, generator, random_graph

import graphssl
from graphssl.augment import DropEdges, DropSubgraph, MaskNodes, OneOf
from graphssl.backbones import backbone
from graphssl.backbones.encodings import return_probabilities
from graphssl.data import Transform, load_dataset
from graphssl.data.features import ATOM_FIELDS, BOND_FIELDS
from graphssl.data.molecules import from_smiles
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.losses import smooth_l1
from graphssl.methods import AttrMasking, ContextPred, GraphJEPA
from graphssl.methods.graph_jepa import regions
from graphssl.monitor import Monitor, effective_rank
from graphssl.ops import dense
from graphssl.recipes import Spec, get_recipe, list_methods
from graphssl.structure import hops_from, induced
from graphssl.train import seeded, train

BONDS = sum(EDGE_FIELDS)  # numbers that an edge of the kind "classes" carries


def encoder(layers=2, width=8, edge_dim=BONDS):
    with seeded(layers):
        return Encoder(backbone("gin", F, [width] * layers, norm="batch", edge_dim=edge_dim)).eval()


def network(graph):
    """As networkx has it, edges undirected."""
    found = nx.Graph()
    found.add_nodes_from(range(graph.num_nodes))
    found.add_edges_from(graph.edge_index.T.tolist())
    return found


def spec(name="data", graphs=10, fields=FIELDS, edge_fields=EDGE_FIELDS, known=False):
    return Spec(
        name, "graph" if graphs > 1 else "node", F, 100, 500, graphs, True, known, BONDS, fields=fields,
        edge_fields=edge_fields,
    )  # fmt: skip


def plan(method, spec, **settings):
    recipe = get_recipe(method)
    with seeded(0):
        return recipe.plan(spec, recipe.settings(spec, settings))


# attribute masking


def masking(fields=FIELDS, edge_fields=EDGE_FIELDS):
    body = encoder()
    with seeded(0):
        method = AttrMasking(body, fields, edge_fields, BONDS).eval()
    torch.nn.init.normal_(method.mask_token, generator=generator())
    torch.nn.init.normal_(method.edge_token, generator=generator())
    return method


def hidden_of(method, graph):
    hidden = method.hide(graph, generator())
    return hidden, hidden[graph.edge_index[0]] | hidden[graph.edge_index[1]]


@pytest.mark.parametrize(("fields", "edge_fields"), [(FIELDS, EDGE_FIELDS), (FIELDS[:1], EDGE_FIELDS[:1])])
def test_attr_masking_equals_plain_loops(fields, edge_fields):
    graph, method = classes(), masking(fields, edge_fields)
    hidden, touched = hidden_of(method, graph)
    x, attr = dense(graph.x).clone(), graph.edge_attr.clone()
    for i in range(graph.num_nodes):
        if hidden[i]:
            x[i] = method.mask_token.detach()
    for e, (i, j) in enumerate(graph.edge_index.T.tolist()):
        if hidden[i] or hidden[j]:
            attr[e] = method.edge_token.detach()
    codes = method.encoder(graph.replace(x=x, edge_attr=attr))

    def mean_loss(rows, heads, widths):
        total = 0.0
        for target, logits in zip(rows, heads, strict=True):
            first = 0
            for width in widths:
                place = target[first : first + width].tolist().index(1.0)
                some = logits[first : first + width]
                total += (some.exp().sum().log() - some[place]).item()
                first += width
        return total / len(rows) / len(widths)

    losses = method(graph, generator())
    nodes = mean_loss(dense(graph.x)[hidden], method.node_classes(codes[hidden]), fields)
    ends = [codes[i] + codes[j] for e, (i, j) in enumerate(graph.edge_index.T.tolist()) if touched[e]]
    edges = mean_loss(graph.edge_attr[touched], method.edge_classes(torch.stack(ends)), edge_fields)
    assert touched.any()
    assert losses["nodes"].item() == pytest.approx(nodes, rel=1e-4)
    assert losses["edges"].item() == pytest.approx(edges, rel=1e-4)


def test_attr_masking_sees_neither_hidden_content_nor_bonds_of_hidden_atoms():
    graph, method = classes(), masking()
    hidden, touched = hidden_of(method, graph)
    reverse = graph.edge_index.flip(0).T.tolist()
    back = [reverse.index(edge) for edge in graph.edge_index.T.tolist()]
    assert torch.equal(touched, touched[back]), "a direction of a hidden bond is seen"
    seen = method.encoder(method.cover(graph, hidden, touched))
    x, attr = dense(graph.x), graph.edge_attr
    for nodes, edges, same in ((hidden, touched, True), (~hidden, ~touched, False)):
        other = graph.replace(
            x=x.roll(1, 1).where(nodes[:, None], x), edge_attr=attr.roll(1, 1).where(edges[:, None], attr)
        )
        again = method.encoder(method.cover(other, hidden, touched))
        assert torch.equal(seen, again) == same
    turned = graph.replace(edge_attr=attr.roll(1, 1).where(touched[:, None], attr))
    assert method(turned, generator())["edges"] != method(graph, generator())["edges"]  # of other targets
    assert torch.equal(method(turned, generator())["nodes"], method(graph, generator())["nodes"])


def test_attr_masking_takes_dense_and_sparse_content_alike():
    graph, method = classes(), masking()
    one, two = method(graph, generator()), method(graph.replace(x=dense(graph.x)), generator())
    for key in ("nodes", "edges"):
        torch.testing.assert_close(one[key], two[key])


def test_attr_masking_of_molecules_without_bonds():
    graph = classes()
    atoms = graph.keep_edges(torch.zeros(graph.num_edges, dtype=torch.bool))
    losses = masking().train()(atoms, generator())
    assert losses["edges"] == 0.0
    sum(losses.values()).backward()
    bare = graph.replace(edge_attr=None)
    unread = AttrMasking(encoder(edge_dim=0), FIELDS)
    assert set(unread(bare, generator())) == {"nodes"}
    assert plan("attr-masking", spec(edge_fields=()), width=8).method.edge_classes is None  # hidden, but of no class
    assert plan("attr-masking", spec(edge_fields=()), width=8).method.edge_token is not None


def test_attr_masking_predicts_the_first_block_or_all():
    assert plan("attr-masking", spec(), width=8).method.fields == FIELDS[:1]
    method = plan("attr-masking", spec(), width=8, targets="all").method
    assert (method.fields, method.edge_fields) == (FIELDS, EDGE_FIELDS)
    assert method.node_classes.out_features == F
    with pytest.raises(UserError, match=r"targets of attr-masking 'types'; did you mean 'type'"):
        plan("attr-masking", spec(), targets="types")


def test_attr_masking_refuses_content_that_is_not_of_classes():
    with pytest.raises(UserError, match="not known to be made of one-hot blocks; use graphmae"):
        graphssl.pretrain(random_graph(12, 0), "attr-masking", epochs=1, progress=False)
    with pytest.raises(UserError, match="12 in all"):
        plan("attr-masking", spec(fields=(12, 1)))
    with pytest.raises(UserError, match="choose targets='all'"):
        plan("graphmae", spec(fields=()), targets="type")


def test_attr_masking_takes_a_users_graph_once_its_classes_are_named():
    graph = random_graph(12, 0)
    graph = graph.replace(x=torch.eye(4)[torch.arange(12) % 4])
    data = graphssl.to_dataset(graph).replace(fields=(4,))
    assert graphssl.pretrain(data, "attr-masking", width=8, epochs=1, progress=False).embed().isfinite().all()


# context prediction


def trees(*sizes):
    """Random trees, long enough to have contexts."""
    graphs = []
    for n in sizes:
        parent = torch.tensor([max(0, i - 1 - int(i % 3 == 0)) for i in range(1, n)], dtype=torch.long)
        edges = torch.stack([parent, torch.arange(1, n)])
        attr = torch.rand(n - 1, BONDS, generator=generator(n)).repeat(2, 1)
        x = torch.randn(n, F, generator=generator(n))
        graphs.append(Graph.build(x, torch.cat([edges, edges.flip(0)], 1), edge_attr=attr))
    return Graph.stack(graphs)


@pytest.mark.parametrize("directed", [False, True])
def test_hops_from_are_shortest_paths(directed):
    graph = Graph.stack([random_graph(n, n, edges_per_node=0.8, directed=directed) for n in (9, 1, 14)])
    starts = torch.zeros(graph.num_nodes, dtype=torch.bool)
    starts[[2, 5, 9, 11]] = True
    found, net = hops_from(graph, starts, 3), network(graph)
    for node in range(graph.num_nodes):
        away = [nx.shortest_path_length(net, s, node) for s in (2, 5, 9, 11) if nx.has_path(net, s, node)]
        assert found[node] == min([*away, 4])


@pytest.mark.parametrize(("hops", "r1", "r2"), [(2, 1, 3), (5, 4, 7), (1, 0, 2)])
def test_pieces_of_context_prediction_are_those_of_networkx(hops, r1, r2):
    graph, net = trees(16, 3, 1, 20), None
    method, net, some = ContextPred(encoder(), encoder(), hops, r1, r2), network(graph), 0
    for seed in range(4):
        pieces = method.draw(graph, generator(seed))
        for b in range(graph.num_graphs):
            own = (graph.batch == b).nonzero().squeeze(1).tolist()
            centre, near, around, anchors = ({i for i in own if part[i]} for part in pieces)
            if not centre:
                assert not near | around | anchors
                continue
            (start,) = centre
            away = nx.single_source_shortest_path_length(net, start)
            assert near == {i for i, d in away.items() if d <= hops}
            assert around == {i for i, d in away.items() if r1 < d <= r2}
            assert anchors == near & around
            assert anchors
            some += 1
        assert not pieces.centre[graph.batch == 2].any()  # one atom has no context
    assert some > 3


def test_context_prediction_equals_plain_loops():
    graph = trees(16, 1, 20, 12)
    method = ContextPred(encoder(2), encoder(3), 2, 1, 4).eval()
    centre, near, around, anchors = method.draw(graph, generator())
    codes, contexts = [], []
    for b in range(graph.num_graphs):
        own = graph.batch == b
        if centre[own].any():
            inside = near & own
            codes.append(method.encoder(graph.keep_nodes(inside))[centre[inside]][0])
            surrounding = around & own
            contexts.append(method.context(graph.keep_nodes(surrounding))[anchors[surrounding]].mean(0))
    M, expected = len(codes), 0.0
    for i in range(M):
        right, wrong = (codes[i] @ contexts[i]).item(), (codes[i] @ contexts[(i + 1) % M]).item()
        expected += (math.log1p(math.exp(-right)) + math.log1p(math.exp(wrong))) / M
    assert M > 1
    assert method(graph, generator())["context"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sizes", [(3, 1, 2), (30, 2)])
def test_without_two_contexts_the_loss_is_zero_and_so_is_its_gradient(sizes):
    method = ContextPred(encoder(), encoder(), 5, 4, 7)
    loss = method(trees(*sizes), generator())["context"]
    loss.backward()
    assert loss == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


def test_settings_of_context_prediction():
    method = plan("context-pred", spec(), width=8).method
    assert (method.hops, method.r1, method.r2) == (5, 4, 7)  # the paper's
    assert len(method.context.backbone.layers) == 3
    method = plan("context-pred", spec(), width=8, layers=2).method
    assert (method.hops, method.r1, method.r2) == (2, 1, 4)
    for settings in ({"r1": 5}, {"r1": 3, "r2": 3}):
        with pytest.raises(UserError, match="shares no nodes with a substructure of 5; choose r1 from 0 to 4"):
            plan("context-pred", spec(), width=8, **settings)


# Graph-JEPA


@pytest.mark.parametrize("kind", ["molecules", "classes", "no-edges", "odd", "directed"])
def test_regions_are_connected_and_as_many_as_asked(kind):
    graph = KINDS[kind]()
    for seed in range(3):
        part, of, counts = regions(graph, 4, generator(seed))
        assert counts.tolist() == [min(4, n) for n in graph.sizes]
        assert of.tolist() == [b for b, count in enumerate(counts.tolist()) for _ in range(count)]
        assert torch.equal(of[part], graph.batch)
        assert part.unique().tolist() == list(range(len(of)))  # none is empty
        net = network(graph)
        for component in nx.connected_components(net):
            inside = {int(part[i]) for i in component}
            if kind in ("classes", "directed"):  # whose graphs are in one piece
                assert all(nx.is_connected(net.subgraph(i for i in component if part[i] == p)) for p in inside)
    assert torch.equal(regions(graph, 4, generator(0)).part, regions(graph, 4, generator(0)).part)


def test_induced_subgraphs_may_share_nodes():
    graph = Graph.stack([random_graph(n, n, attributes=True, weights=True, directed=True) for n in (6, 9)])
    sets = [[0, 3, 4], [], [4, 3, 3, 8, 12], [7]]
    node = torch.tensor([i for members in sets for i in members])
    part = torch.tensor([p for p, members in enumerate(sets) for _ in members])
    pieces, rows = induced(graph, node, part, 4)
    assert pieces.sizes == (3, 0, 4, 1)
    pairs = list(zip(*graph.edge_index.tolist(), graph.edge_weight.tolist(), strict=True))
    for p, members in enumerate(sets):
        own = pieces.batch == p
        assert rows[own].tolist() == sorted({*members})
        assert torch.equal(pieces.x[own], graph.x[sorted({*members})])
        inside = own[pieces.edge_index[1]]
        source, target = rows[pieces.edge_index[:, inside]].tolist()
        found = sorted(zip(source, target, pieces.edge_weight[inside].tolist(), strict=True))
        assert found == sorted(pair for pair in pairs if pair[0] in members and pair[1] in members)
    assert len(pieces.edge_attr) == pieces.num_edges
    key = pieces.edge_index[1] * pieces.num_nodes + pieces.edge_index[0]
    assert (key.diff() >= 0).all()


@pytest.mark.parametrize("predicts", ["hyperbola", "latent"])
def test_graph_jepa_equals_plain_loops(predicts):
    graph = classes()
    with seeded(0):
        method = GraphJEPA(encoder(), 4, 2, predicts).eval()
        torch.nn.init.normal_(method.teacher.module.backbone.layers[0].conv.first.weight)  # so that it is another
    net, walks, draws = network(graph), return_probabilities(graph), generator()
    cut = regions(graph, 4, draws)
    context, target = method.draw(cut, draws)

    def piece(p):
        members = {i for i in range(graph.num_nodes) if cut.part[i] == p}
        members |= {j for i in members for j in net[i]}
        keep = torch.tensor([i in members for i in range(graph.num_nodes)])
        return graph.keep_nodes(keep), walks[keep].amax(0)

    terms = []
    for b in range(graph.num_graphs):
        own = [p for p in range(len(cut.graph)) if cut.graph[p] == b]
        chosen = [p for p in own if context[p]]
        assert len(chosen) == (len(own) > 1)
        wanted = [p for p in own if target[p]]
        assert len(wanted) == min(2, len(own) - 1)
        for p in wanted:
            (seen, here), (unseen, there) = piece(chosen[0]), piece(p)
            said = method.predict(method.encoder(seen).mean(0) + method.here(here) + method.there(there))
            code = method.teacher.module(unseen).mean(0)
            point = torch.stack([code.mean().cosh(), code.mean().sinh()])
            if predicts == "latent":
                point = (code - code.mean()) / (code.var(correction=0) + 1e-5).sqrt()
            away = (said - point).abs()
            terms.append(torch.where(away < 0.5, away.square(), away - 0.25).mean())
    loss = method(graph, generator())["latent"]
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)


def test_points_to_predict_lie_on_the_hyperbola():
    graph = classes()
    points = GraphJEPA(encoder()).wanted(graph).double()
    torch.testing.assert_close(points[:, 0].square() - points[:, 1].square(), torch.ones(4, dtype=torch.double))
    assert (points[:, 0] >= 1).all()


def test_smooth_l1_is_a_square_up_to_beta_and_straight_beyond():
    pred, target = torch.tensor([0.0, 0.2, 3.0, -3.0]), torch.zeros(4)
    assert smooth_l1(pred, target, 0.5).item() == pytest.approx((0.04 + 2.75 + 2.75) / 4)
    assert smooth_l1(pred[:0], target[:0]) == 0.0


def test_the_teacher_of_graph_jepa_learns_by_following_alone():
    graph, method = classes(), GraphJEPA(encoder(), 4, momentum=0.5)
    method(graph, generator())["latent"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    assert any(p.grad.any() for p in method.encoder.parameters())
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.teacher.parameters()]
    method.after_step(0.5)  # a momentum of 0.75 by now
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)
    method.after_step(1.0)
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_a_graph_in_one_part_has_nothing_to_predict():
    method = GraphJEPA(encoder(edge_dim=0), 4)
    loss = method(KINDS["one-node"](), generator())["latent"]
    loss.backward()
    assert loss == 0.0
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("predicts", ["hyperbola", "latent"])
def test_codes_of_graph_jepa_do_not_collapse(predicts):
    graph = Graph.stack([classes()] * 6)
    method = plan("graph-jepa", spec(), width=16, layers=2, parts=4, predicts=predicts).method
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    watch = Monitor(method.encoder, graph, 20, "graph-jepa")

    def rank():
        with torch.no_grad():
            return effective_rank(method.encoder.eval().of_graphs(graph))

    before, history = rank(), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what the monitor would say
        for step, losses in train(method, lambda step: graph, optimizer, 80):
            history.append(losses["loss"].item())
            if step % 4 == 0:
                looked = watch.look(step // 4)
    assert sum(history[-10:]) < sum(history[:10])
    assert rank() > before / 2
    assert looked["spread"] > 0.3


def test_impossible_settings_of_graph_jepa_are_refused():
    with pytest.raises(UserError, match="choose parts of 2 or more"):
        plan("graph-jepa", spec(), parts=1)
    with pytest.raises(UserError, match="unknown target of graph-jepa 'hyperbole'; did you mean 'hyperbola'"):
        plan("graph-jepa", spec(), predicts="hyperbole", width=8)


@pytest.mark.parametrize(("method", "instead"), [("graph-jepa", "bgrl"), ("context-pred", "dgi")])
def test_one_graph_is_refused_with_advice(method, instead):
    with pytest.raises(UserError, match=f"one graph; use {instead}"):
        graphssl.pretrain(random_graph(12, 0), method, epochs=1, progress=False)


# chemical views


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
def test_dropped_bonds_go_both_ways_and_are_a_share(ratio):
    graph = classes()
    for seed in range(4):
        view = DropEdges(ratio)(graph, generator(seed))
        assert view.sizes == graph.sizes
        left = {*map(tuple, view.edge_index.T.tolist())}
        assert left == {(j, i) for i, j in left}
        for b, n in enumerate((7, 1, 9, 12)):
            bonds = n - 1 + (n > 6)
            assert int((view.batch[view.edge_index[1]] == b).sum()) == 2 * (bonds - int(ratio * bonds))
        known = dict(zip(map(tuple, graph.edge_index.T.tolist()), graph.edge_attr.tolist(), strict=True))
        for edge, attr in zip(map(tuple, view.edge_index.T.tolist()), view.edge_attr.tolist(), strict=True):
            assert known[edge] == attr


def test_dropped_bonds_leave_self_loops():
    view = DropEdges(0.9)(KINDS["odd"](), generator())
    source, target = view.edge_index
    assert [(i, j) for i, j in zip(source.tolist(), target.tolist(), strict=True) if i == j] == [(1, 1), (5, 5)]


@pytest.mark.parametrize("ratio", [0.25, 0.9])
def test_a_removed_subgraph_is_a_connected_share(ratio):
    graph = classes()
    graph = graph.replace(x=torch.arange(graph.num_nodes).float()[:, None])  # so that each can be told
    net = network(graph)
    for seed in range(6):
        view = DropSubgraph(ratio)(graph, generator(seed))
        assert list(view.sizes) == [n - int(ratio * n) for n in graph.sizes]
        gone = {*range(graph.num_nodes)} - {int(i) for i in view.x}
        for b in range(graph.num_graphs):
            some = [i for i in gone if graph.batch[i] == b]
            assert not some or nx.is_connected(net.subgraph(some))
        left = {*map(tuple, view.x[:, 0].long()[view.edge_index].T.tolist())}
        assert left == {(i, j) for i, j in graph.edge_index.T.tolist() if i not in gone and j not in gone}
        assert len(view.edge_attr) == view.num_edges


def test_a_removed_subgraph_ends_with_its_component():
    graph = Graph.build(torch.ones(10, 1), [[0, 1, 2, 3], [1, 0, 3, 2]])
    for seed in range(5):
        assert DropSubgraph(0.5)(graph, generator(seed)).num_nodes >= 8


@pytest.mark.parametrize("method", ["graphcl", "simsiam"])
def test_chemical_views_are_masked_atoms_dropped_bonds_and_removed_pieces(method):
    made = plan(method, spec(), view="chemical", ratio=0.3, width=8).method
    assert made.view == OneOf((MaskNodes(0.3), DropEdges(0.3), DropSubgraph(0.3)))
    assert made(classes(), generator())


# GraphMAE on molecules


def test_graphmae_reads_bonds_in_encoder_and_decoder():
    graph, case = classes(), METHODS["graphmae-gin"]
    method = case.make(graph, kind="classes").eval()
    hidden = method.hide(graph, generator())
    codes, attr = method.bridge(method.encoder(graph)), graph.edge_attr
    other = graph.replace(edge_attr=attr.roll(1, 1))
    assert not torch.allclose(method.encoder(graph), method.encoder(other))
    assert not torch.allclose(method.decoder(graph, codes, rows=hidden), method.decoder(other, codes, rows=hidden))
    method(graph, generator())["content"].backward()
    assert all(layer.conv.edge.weight.grad.any() for layer in [*method.encoder.backbone.layers, *method.decoder.layers])


def test_graphmae_of_types_rebuilds_the_first_block_alone():
    graph = classes()
    method = plan("graphmae", spec(), encoder="gin", decoder="gin", width=8, targets="type").method.eval()
    assert method.decoder.dim == FIELDS[0]
    hidden = method.hide(graph, generator())
    loss = method(graph, generator())["content"]
    turned = dense(graph.x).clone()
    turned[hidden, FIELDS[0] :] = turned[hidden, FIELDS[0] :].flip(1)
    assert torch.equal(method(graph.replace(x=turned), generator())["content"], loss)
    turned[hidden, : FIELDS[0]] = turned[hidden, : FIELDS[0]].roll(1, 1)
    assert not torch.equal(method(graph.replace(x=turned), generator())["content"], loss)
    assert method.reconstruct(graph, generator()) is None
    with pytest.raises(UserError, match="targets of graphmae"):
        plan("graphmae", spec(), targets="first")


# settings

OF_MOLECULES = ("graphmae", "graphcl", "infograph", "attr-masking", "context-pred", "graph-jepa")


def spec_of_molecules(source):
    """Of a set by name, or of a user's own SMILES."""
    if source == "SMILES":
        pytest.importorskip("rdkit", reason="rdkit reads SMILES")
        return Spec.of(from_smiles(["CCO", "c1ccccc1O", "CC(=O)O"]))
    try:
        return Spec.of(load_dataset(source))
    except UserError as error:
        pytest.skip(str(error))


def test_these_have_settings_for_molecules():
    assert {name for name in list_methods() if get_recipe(name).of_molecules} == {*OF_MOLECULES}


@pytest.mark.parametrize("source", ["SMILES", "bace", "ogbg-molbace"])
@pytest.mark.parametrize("method", OF_MOLECULES)
def test_molecules_by_any_name_have_the_papers_settings(method, source):
    recipe, found = get_recipe(method), spec_of_molecules(source)
    settings = recipe.settings(found, {})
    assert found.molecules
    assert settings == {**recipe.defaults, **recipe.of_molecules}
    assert (settings["epochs"], settings["width"] in (64, 300), settings["edge_attr"]) == (20, True, True)
    assert recipe.settings(found, {"epochs": 3})["epochs"] == 3


@pytest.mark.parametrize("method", OF_MOLECULES)
def test_other_graphs_of_classes_have_settings_for_their_task(method):
    recipe, drugs = get_recipe(method), Spec.of(load_dataset("drugs-mini"))
    assert not drugs.molecules
    assert recipe.settings(drugs, {}) == {**recipe.defaults, **recipe.by_task.get("graph", {})}
    assert not spec(graphs=1, fields=ATOM_FIELDS).molecules  # one graph, whatever its nodes are


def test_recipes_for_molecules_leave_their_graphs_alike():
    atoms = spec(fields=ATOM_FIELDS, edge_fields=BOND_FIELDS)
    atoms = dataclasses.replace(atoms, dim=sum(ATOM_FIELDS), edge_dim=sum(BOND_FIELDS))
    assert {plan(method, atoms, width=8).transform for method in OF_MOLECULES} == {Transform()}
    assert plan("graphmae", spec(fields=()), width=8).transform == Transform(self_loops=True, row_normalize=True)
    assert not plan("graphmae", spec(), width=8, self_loops=False).transform.self_loops


# what edges carry

READING = [name for name in list_methods() if "encoder" in get_recipe(name).defaults]
READING = [name for name in READING if name not in ("bandana", "point-mae")]  # one takes no "gine", one no graphs
FEW = {"layers": 2, "hidden": 8, "inner": 8, "first_width": 8, "decoder_width": 16, "heads": 2, "clusters": 2}


@pytest.mark.parametrize("method", READING)
def test_a_gine_reads_what_edges_carry_in_every_method(method):
    graph = classes().replace(pos=torch.rand(29, 2, generator=generator()))
    kind, recipe = dataclasses.replace(spec(graphs=4), axes=2), get_recipe(method)
    few = {key: value for key, value in FEW.items() if key in recipe.defaults and method != "cca-ssg"}
    more = {"tasks": "edge-mask"} if method == "selftask" else {}
    made = plan(method, kind, encoder="gine", width=16, **few, **more).method
    if method != "untrained":
        assert all(loss.isfinite() for loss in made.train()(graph, generator()).values())
    encoder, other = made.encoder.eval(), graph.replace(edge_attr=graph.edge_attr.roll(1, 1))
    assert not torch.allclose(encoder(graph), encoder(other))


@pytest.mark.parametrize("method", ["graphcl", "infograph", "simgrace", "graphmae"])
def test_a_gin_reads_what_edges_carry_where_it_is_told_to(method):
    def reads(encoder, **settings):
        conv = plan(method, spec("mutag", known=True), encoder=encoder, width=8, **settings).method.encoder.backbone
        return conv.layers[0].conv.edge is not None

    assert [reads("gin"), reads("gin", edge_attr=True), reads("gin", edge_attr=False)] == [False, True, False]
    assert [reads("gine"), reads("gine+virtual"), reads("gine", edge_attr=False)] == [True, True, False]
