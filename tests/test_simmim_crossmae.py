"""SimMIM and CrossMAE: what their encoders see, what their losses count, and a decoder that reads across only."""

import pytest
import torch
from conftest import KINDS, METHODS, F, generator
from torch import nn

import graphssl
from graphssl.backbones import CrossBlock, backbone
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.masks import Uniform
from graphssl.methods import CrossMAE, SimMIM
from graphssl.ops import dense
from graphssl.train import seeded, train

BOTH = [name for name in METHODS if name.startswith(("simmim", "crossmae"))]


class Given:
    """A masker that hides what it was given."""

    def __init__(self, hidden):
        self.hidden = hidden

    def __call__(self, graph, generator=None):
        return self.hidden


def codes_of(method, graph, given):
    """What the encoder puts out at each call of a step, in evaluation mode."""
    method.eval()
    seen = []
    last = method.encoder.backbone.layers[-1]
    handle = last.register_forward_hook(lambda module, args, out: seen.append(out.detach().clone()))
    method(graph, given)
    handle.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", ["patches", "tubelets", "points", "skeleton", "molecules", "words"])
def test_the_encoder_does_not_see_hidden_content(name, kind):
    graph = KINDS[kind]()
    method = METHODS[name].make(graph)
    hidden = Uniform(0.6)(graph, generator(3))
    method.masker, method.progress = Given(hidden), None
    x = dense(graph.x)
    before = codes_of(method, graph.replace(x=x), generator())
    other = x + hidden[:, None] * torch.randn(x.shape, generator=generator(1))
    assert torch.equal(before, codes_of(method, graph.replace(x=other), generator()))
    shown = x + ~hidden[:, None] * torch.randn(x.shape, generator=generator(1))
    assert not torch.allclose(before, codes_of(method, graph.replace(x=shown), generator()))


def test_simmim_is_the_absolute_error_of_hidden_content_read_linearly():
    graph = KINDS["patches"]()
    method = METHODS["simmim"].make(graph).eval()
    hidden = torch.arange(graph.num_nodes) % 3 == 0
    method.masker, method.progress = Given(hidden), None
    x = graph.x.clone()
    x[hidden] = method.mask_token.detach()
    said = method.read(method.encoder(graph.replace(x=x)))
    expected = sum((said[i] - graph.x[i]).abs().sum() for i in hidden.nonzero().flatten()) / (int(hidden.sum()) * F)
    torch.testing.assert_close(method(graph)["content"], expected)
    where, content = method.reconstruct(graph)
    assert torch.equal(where, hidden)
    assert torch.equal(content[~hidden], graph.x[~hidden])
    torch.testing.assert_close(content[hidden], said[hidden])


def crossmae(decoded=1.0, normalize=False, **options) -> CrossMAE:
    torch.manual_seed(0)
    body = backbone("transformer", F, [16] * 3, heads=2, axes=2, **options)
    position = nn.Linear(2, 8)
    return CrossMAE(
        Encoder(body), [CrossBlock(8, 16, 2) for _ in range(2)], F, position, Uniform(0.5), decoded, normalize
    )


def test_crossmae_is_its_decoder_graph_by_graph():
    graph, method = KINDS["patches"](), crossmae().eval()
    hidden = Uniform(0.5)(graph, generator(2))
    method.masker = Given(hidden)
    errors = []
    for b, part in enumerate(graph.parts()):
        gone = hidden[graph.batch == b]
        shown = part.keep_nodes(~gone)
        layers = list(method.encoder.backbone.walk(shown, shown.x))
        for node in gone.nonzero().flatten():  # each by itself: there is no attention among them
            h = (method.mask_token + method.position(part.pos[node]))[None]
            for block, weights in zip(method.blocks, method.mix, strict=True):
                memory = sum(w * layer for w, layer in zip(weights, layers, strict=True))
                q = block.q(block.norm1(h)).view(2, 4)
                k, v = block.kv(block.norm_memory(memory)).view(-1, 2, 2, 4).unbind(1)
                read = torch.cat([(k[:, i] @ q[i] / 2).softmax(0) @ v[:, i] for i in range(2)])
                h = h + block.out(read)
                h = h + block.mlp(block.norm2(h))
            errors.append((method.read(method.norm(h))[0] - part.x[node]).square())
    torch.testing.assert_close(method(graph)["content"], torch.stack(errors).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("decoded", "count"), [(0.25, 2), (0.5, 4), (1.0, 8), (0.01, 1)])
def test_crossmae_decodes_a_share_of_the_hidden_nodes_of_each_graph(decoded, count):
    graph, method = KINDS["patches"](), crossmae(decoded)
    hidden = Uniform(0.5)(graph, generator(2))
    asked = method._some(graph, hidden, generator(4))
    assert torch.bincount(graph.batch[asked]).tolist() == [count] * 2
    assert not (asked & ~hidden).any()
    if decoded < 1:
        assert not torch.equal(asked, method._some(graph, hidden, generator(5)))


def test_crossmae_rebuilds_every_hidden_node_in_the_scale_of_the_content():
    graph = KINDS["patches"]()
    method = crossmae(0.25, normalize=True).eval()
    hidden = Uniform(0.5)(graph, generator(2))
    method.masker = Given(hidden)
    where, content = method.reconstruct(graph, generator())
    assert torch.equal(where, hidden)
    assert torch.equal(content[~hidden], graph.x[~hidden])
    said, true = method._decode(graph, ~hidden, hidden), graph.x[hidden]
    expected = said * (true.var(1, keepdim=True) + 1e-6).sqrt() + true.mean(1, keepdim=True)
    torch.testing.assert_close(content[hidden], expected)


def test_each_decoder_block_reads_its_own_sum_of_layers():
    graph, method = KINDS["patches"](), crossmae().eval()
    assert method.mix.shape == (2, 3)
    before = method(graph, generator())["content"]
    for block in range(2):
        for layer in range(3):
            with torch.no_grad():
                method.mix[block, layer] += 1.0
            assert not torch.equal(before, method(graph, generator())["content"])
            with torch.no_grad():
                method.mix[block, layer] -= 1.0


def test_crossmae_refuses_layers_that_it_cannot_sum():
    with pytest.raises(ValueError, match="give them one width"):
        CrossMAE(Encoder(backbone("gcn", F, [8, 16])), [CrossBlock(8, 16, 2)], F)
    with pytest.raises(ValueError, match="read the last"):
        CrossMAE(Encoder(backbone("gcn", F, [8, 8]), "all"), [CrossBlock(8, 8, 2)], F)


IMAGES = torch.rand(12, 1, 8, 8, generator=generator(6))
SMALL = {"width": 16, "layers": 2, "epochs": 2, "progress": False}


@pytest.mark.parametrize("method", ["simmim", "crossmae"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pool": "class", "mask_end": 0.9},
        {"encoder": "sparse-transformer", "hops": 2, "dilation": 2, "global_nodes": 2, "pool": "class"},
        {"encoder": "gat", "patch": 2},
        {"position": "learned", "edges": "full", "encoder": "sparse-transformer"},
    ],
)
def test_images_pretrain_with_any_encoder(method, settings):
    run = graphssl.pretrain(IMAGES, method, **SMALL, **settings)
    assert run.embed().shape == (12, 16)
    assert run.embed().isfinite().all()
    extra = settings.get("global_nodes", 0) + (settings.get("pool") == "class")
    assert getattr(run.encoder.backbone, "extra", 0) == extra
    assert run.plan.tokenizer.edges == settings.get("edges", "none" if not settings.get("encoder") else "diagonal")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hops": 2}, "choose encoder='sparse-transformer'"),
        ({"global_nodes": 1, "encoder": "gat"}, "choose encoder='sparse-transformer'"),
        ({"dilation": 0, "encoder": "sparse-transformer"}, "1 or more"),
        ({"pool": "class", "encoder": "gat"}, "class token"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        graphssl.pretrain(IMAGES, "simmim", **SMALL, **settings)


def test_both_learn_what_patches_have_in_common():
    """Each image is one number: hidden patches can be told from visible ones."""
    images = torch.rand(32, 1, 1, 1, generator=generator(7)).expand(32, 1, 8, 8)
    for method in ("simmim", "crossmae"):
        settings = {**SMALL, "epochs": 60, "batch_size": 32, "lr": 5e-3}
        run = graphssl.pretrain(images, method, seed=0, **settings)
        with torch.no_grad():
            hidden, said = run.method.eval().reconstruct(graph := run.data().batch(range(32)), generator())
        mean = graph.x[hidden].mean()
        assert (said - graph.x)[hidden].abs().mean() < 0.5 * (mean - graph.x[hidden]).abs().mean(), method


@pytest.mark.parametrize("method", ["simmim", "crossmae"])
def test_bf16_runs(method):
    assert graphssl.pretrain(IMAGES, method, precision="bf16-mixed", **SMALL).embed().isfinite().all()


@pytest.mark.parametrize("method", ["simmim", "crossmae"])
def test_images_are_altered_anew_in_each_step(method):
    plain, altered = (graphssl.pretrain(IMAGES, method, augment=a, **SMALL) for a in ("none", "strong"))
    assert plain.history["content"] != altered.history["content"]


def test_simmim_along_edges_tells_hidden_nodes_by_their_neighbours():
    """In each pair of joined nodes the content is the same: a GCN learns to read it from the other."""
    x = torch.rand(60, 1, generator=generator()).repeat_interleave(2, 0).expand(-1, F)
    one = torch.arange(0, 120, 2)
    graph = Graph.build(x, torch.stack([torch.cat([one, one + 1]), torch.cat([one + 1, one])]))
    hidden = torch.arange(120) % 2 == 0
    with seeded(0):
        method = SimMIM(Encoder(backbone("gcn", F, [16])), Given(hidden))
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    for _ in train(method, lambda step: graph, optimizer, 150):
        pass
    assert method(graph)["content"] < 0.2 * (x - x.mean()).abs().mean()
