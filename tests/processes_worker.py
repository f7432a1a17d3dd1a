"""What tests/test_processes.py has torchrun start: each function whose name begins with check_, in all processes.

Writes for each rank what failed, by name.
"""

import json
import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch_geometric.data import Data

import graphssl
from graphssl import processes, runner, store
from graphssl.backbones import Backbone
from graphssl.backbones.base import Layer
from graphssl.balance import MGDA
from graphssl.encoder import Encoder
from graphssl.graph import Graph
from graphssl.losses import info_nce
from graphssl.methods import BGRL, GraphMAE, Method, MultiTask
from graphssl.recipes import Spec, get_recipe
from graphssl.train import train

RANK = int(os.environ.get("RANK", "0"))
CPU = torch.device("cpu")
QUIET = {"progress": False, "epochs": 2, "batch_size": 5}
# epochs of three steps: of 25 graphs two processes take five each a step, the last two and three
SETS = {
    "graphmae": {"width": 8, "heads": 2, "encoder": "gat", "decoder": "gat", "norm": "layer", **QUIET},
    "bgrl": {"width": 8, "hidden": 8, "encoder": "gat", "norm": "none", "layers": 1, **QUIET},
    "bandana": {"width": 8, "encoder": "gcn", "norm": "none", **QUIET},
    "scgc": {"width": 8, "clusters": 2, "warmup": 0.4, **QUIET},  # whose losses have other names after a while
}
PARTS = {  # of one graph
    "graphmae": {**SETS["graphmae"], "loader": "neighbor", "workers": 1},
    "bandana": {**SETS["bandana"], "loader": "neighbor", "batch_size": 20},
}


def graphs(count: int = 25, seed: int = 1) -> list[Data]:
    g = torch.Generator().manual_seed(seed)
    out = []
    for i in range(count):
        n = 4 + i % 5
        edges = torch.randint(n, (2, 2 * n), generator=g)
        out.append(Data(x=torch.rand(n, 5, generator=g), edge_index=torch.cat([edges, edges.flip(0)], 1)))
    return out


def one_graph(nodes: int = 60) -> Data:
    g = torch.Generator().manual_seed(2)
    edges = torch.randint(nodes, (2, 3 * nodes), generator=g)
    return Data(x=torch.rand(nodes, 5, generator=g), edge_index=torch.cat([edges, edges.flip(0)], 1))


@contextmanager
def alone():
    """Within, this process was not started with others."""
    before = os.environ.pop("WORLD_SIZE")
    yield
    os.environ["WORLD_SIZE"] = before


def refused(kind: type[Exception], *words: str, call, within: float = 20.0) -> str:
    """``call`` raises that error, soon, with these words."""
    began = time.monotonic()
    try:
        call()
    except kind as error:
        said = str(error)
    else:
        raise AssertionError(f"no {kind.__name__}")
    assert time.monotonic() - began < within
    assert all(word in said for word in words), said
    return said


def weights(run) -> list[torch.Tensor]:
    return list(store.tensors_of(run.method).values())


def same_bits(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def check_gathered_rows_stand_in_rank_order_and_their_gradient_is_the_sum(out):
    for numbers in ((3, 1), (0, 2), (2, 2), (4, 0)):
        rows = torch.randn(sum(numbers), 2, generator=torch.Generator().manual_seed(0))
        mine = rows.split(numbers)[RANK].clone().requires_grad_()
        weigh = torch.arange(2 * len(rows)).view(-1, 2).float()
        with processes.group(CPU):
            found = processes.gather(mine)
            assert torch.equal(found, rows)
            (weigh * (RANK + 1) * found.square()).sum().backward()
        assert torch.allclose(mine.grad, 3 * 2 * (weigh * rows).split(numbers)[RANK])  # 1 + 2 times


def check_a_contrast_of_gathered_rows_has_the_loss_and_gradient_of_the_joined_batch(out):
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(3))
    parts = (6, 3)

    def made():
        torch.manual_seed(0)
        return nn.Linear(6, 4), nn.Linear(6, 4)

    one, two = made()
    joined = info_nce(one(x), two(x), 0.5, True, True)
    joined.backward()
    mine = made()
    with processes.group(CPU):
        rows = x.split(parts)[RANK]
        loss = info_nce(*(processes.gather(layer(rows)) for layer in mine), 0.5, True, True)
        loss.backward()
        assert torch.allclose(loss, joined, atol=1e-6)
        for layer, whole in zip(mine, (one, two), strict=True):
            assert torch.allclose(processes.mean(layer.weight.grad), whole.weight.grad, atol=1e-6)


def check_contrastive_methods_take_the_joined_batch(out):
    batch = [Graph.from_data(data) for data in graphs(7)]
    flip = lambda graph, generator: graph.replace(x=graph.x.flip(1))  # noqa: E731
    for name in ("grace", "cca-ssg", "graphcl", "simgrace"):
        recipe, spec = get_recipe(name), Spec("data", "graph", 5, 40, 80, 7, False)
        settings = {"width": 8, "encoder": "gcn", "norm": "none"}

        def made(recipe=recipe, spec=spec, settings=settings, name=name):
            torch.manual_seed(0)
            method = recipe.plan(spec, recipe.settings(spec, settings)).method
            if name == "grace":
                method.views = (lambda graph, generator: graph, flip)
            elif name == "simgrace":
                method.eta = 0.0
            else:
                method.view = flip
            return method

        joined = made()
        whole = joined(Graph.stack(batch))
        joined.total(whole).backward()
        mine = made()
        with processes.group(CPU):
            losses = mine(Graph.stack(batch[:5] if RANK == 0 else batch[5:]))
            mine.total(losses).backward()
            for key, loss in losses.items():
                assert torch.allclose(loss, whole[key], rtol=1e-5), (name, key)
            for (key, p), q in zip(mine.named_parameters(), joined.parameters(), strict=True):
                assert (p.grad is None) == (q.grad is None), (name, key)
                if p.grad is not None:
                    assert torch.allclose(processes.mean(p.grad), q.grad, rtol=1e-3, atol=1e-6), (name, key)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(5, 4)

    def forward(self, graph, h, rows=None):
        return self.map(h)


class Toy(Method):
    """The square of the codes' distance from a number; ``spoil(step)`` is called where ``where`` says."""

    def __init__(self, encoder=None, number=0.0, spoil=None, where="", talks=True):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = encoder or Encoder(Backbone([Layer(Plain(), 5, 4)]))
        self.number, self.spoil, self.where, self.talks, self.step = number, spoil, where, talks, 0

    def forward(self, graph, generator=None):
        self.step += 1
        codes = self.encoder(graph)
        self._at("before")
        if self.talks:
            codes = processes.gather(codes)
        self._at("after")
        if self.where == "backward" and self.spoil:
            codes.register_hook(lambda gradient: self._at("backward"))
        return {"far": (codes - self.number).square().mean()}

    def _at(self, where):
        if self.spoil and where == self.where:
            self.spoil(self.step)


def trained(method, steps=4, **how):
    batch = [Graph.from_data(data) for data in graphs(2)]
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    return [losses for _, losses in train(method, lambda step, slot: batch[slot % 2], optimizer, steps, **how)]


def check_what_fails_in_one_process_is_raised_in_all_wherever_it_happens(out):
    for at in (1, 3):
        for talks in (True, False):
            for where in ("before", "after", "backward"):

                def spoil(step, at=at):
                    if step == at and RANK == 1:
                        raise graphssl.UserError("the widget is blue")

                with processes.group(CPU):
                    method = Toy(spoil=spoil, where=where, talks=talks)
                    words = refused(graphssl.UserError, call=lambda m=method: trained(m))
                    assert words == "rank 1 of 2: the widget is blue", (at, talks, where)
                    assert method.step == at

    def burst(step):
        if RANK == 0:
            raise torch.OutOfMemoryError("no room")

    def broken(step):
        if RANK == 1:
            raise KeyError("key")

    with processes.group(CPU):
        refused(
            graphssl.OutOfMemory,
            "rank 0 of 2: memory ran out",
            "batch_size",
            call=lambda: trained(Toy(spoil=burst, where="after")),
        )
        kind = KeyError if RANK == 1 else graphssl.LostProcess  # its own has the way there
        refused(kind, "key", call=lambda: trained(Toy(spoil=broken, where="after")))
        far = Toy(number=float("inf") if RANK == 1 else 0.0, talks=False)
        refused(graphssl.Diverged, "rank 1 of 2", "not finite at step 1 of 4", call=lambda: trained(far))


def check_weights_that_come_to_differ_are_noticed(out):
    class Drifting(Toy):
        def forward(self, graph, generator=None):
            with torch.no_grad():
                self.encoder.backbone.layers[0].conv.map.bias.add_(graph.x.sum())
            return super().forward(graph, generator)

    with processes.group(CPU):
        refused(graphssl.UserError, "Drifting", "own batch", "after_step", call=lambda: trained(Drifting()))


def check_losses_of_other_names_are_refused(out):
    class Named(Toy):
        def forward(self, graph, generator=None):
            return {f"far {RANK}": loss for loss in super().forward(graph, generator).values()}

    with processes.group(CPU):
        refused(graphssl.UserError, "other names", call=lambda: trained(Named()))


def check_all_stop_after_the_step_in_which_one_was_asked(out):
    for asked in (0, 1):
        with processes.group(CPU):
            method = Toy(talks=False)
            done = trained(method, stop=lambda asked=asked, method=method: asked == RANK and method.step == 2)
        assert len(done) == 2


def check_a_gram_matrix_is_that_of_the_whole_step(out):
    def tasks():
        first = Toy(talks=False)
        return MultiTask({"a": first, "b": Toy(first.encoder, 0.5, talks=False)}, MGDA(normalize=False))

    same = [Graph.from_data(data) for data in graphs(6)][0::5]  # of one size, so that means of means are means
    whole, mine = tasks(), tasks()
    gram = whole._gram(whole(Graph.stack(same)))
    with processes.group(CPU):
        found = mine._gram(mine(same[RANK]))
        assert torch.allclose(found, gram, atol=1e-6)
        refused(graphssl.UserError, "accumulate is 2", "gradients", call=lambda: trained(mine, accumulate=2))


def check_one_that_does_not_answer_in_time_is_lost(out):
    before, os.environ[processes.TIMEOUT] = os.environ[processes.TIMEOUT], "1"
    with processes.group(CPU):
        if RANK == 1:
            time.sleep(3)
        refused(graphssl.LostProcess, "one of the 2 processes was lost", call=lambda: trained(Toy()))
    os.environ[processes.TIMEOUT] = before


def check_two_processes_are_one_that_accumulates_two_batches(out):
    parts = [(one_graph(), method, settings) for method, settings in PARTS.items()]
    for data, method, settings in [*((graphs(), *some) for some in SETS.items()), *parts]:
        together = graphssl.pretrain(data, method, **settings)
        assert not processes.joined()
        with alone():
            one = graphssl.pretrain(data, method, accumulate=2, **settings)
        for key, values in one.history.items():
            if key not in ("seconds", "effective_rank", "spread"):
                pairs = zip(values, together.history[key], strict=True)
                assert all(abs(a - b) < 1e-6 * max(1, abs(a)) or a != a for a, b in pairs), (method, key)
        for a, b in zip(weights(one), weights(together), strict=True):
            assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-6), method


def check_a_run_comes_again_bit_for_bit_also_where_one_process_is_told_to_stop(out):
    folders = [out / name for name in ("first", "second", "cut")]
    settings = SETS["bgrl"]
    one, two = (graphssl.pretrain(graphs(), "bgrl", out=folder, **settings) for folder in folders[:2])
    assert same_bits(one, two)
    assert one.history["loss"] == two.history["loss"]
    assert one.config["processes"] == 2
    assert one.embed().shape == (25, 8)
    config = json.loads((folders[0] / store.CONFIG).read_text())
    assert (config["processes"], config["finished"]) == (2, True)
    assert {p.name for p in folders[0].iterdir()} == {store.CONFIG, store.METRICS, store.WEIGHTS}
    assert [line["epoch"] for line in store.read_metrics(folders[0])] == [1, 2]

    plain, steps = BGRL.after_step, []

    def after_step(self, progress):
        plain(self, progress)
        steps.append(progress)
        if len(steps) == 2 and RANK == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # for the signal to come before the next step

    BGRL.after_step = after_step
    refused(
        KeyboardInterrupt, "stopped after step 3 of 6 and saved", "--resume",
        call=lambda: graphssl.pretrain(graphs(), "bgrl", out=folders[2], **settings),
    )  # fmt: skip
    BGRL.after_step = plain
    assert len(steps) == 3
    go_on = lambda: graphssl.pretrain(graphs(), "bgrl", out=folders[2], resume=True, **settings)  # noqa: E731
    with alone():
        refused(graphssl.UserError, "processes (was 2, now 1)", call=go_on)
    cut = go_on()
    assert same_bits(cut, one)
    assert [line["loss"] for line in cut.lines] == [line["loss"] for line in one.lines]
    assert same_bits(go_on(), one)  # finished: it comes back
    with alone():
        assert same_bits(go_on(), one)


def check_every_refusal_is_one_sentence_in_every_process_before_anything_is_written(out):
    one = graphs(1)[0]
    gat = {"encoder": "gat", "decoder": "gat", "norm": "none", "width": 8, "heads": 2, "progress": False}

    def call(data, method="graphmae", **settings):
        return lambda: graphssl.pretrain(data, method, out=out / "refused", **{"progress": False, **settings})

    def folders():
        for name in ("stored-cut", "stored-gone", "stored"):
            graphssl.convert_to_folder(one, out / name, progress=False)
        (out / "stored-cut" / "col.npy").write_bytes((out / "stored-cut" / "col.npy").read_bytes()[:-8])
        (out / "stored-gone" / "x.npy").unlink()

    with processes.group(CPU):
        processes.agree(folders)
    rank = "rank 1 of 2: "
    pareto = {"progress": False, "balance": "pcgrad", "accumulate": 2}
    for words, given in (
        (("one graph", "2 processes", "loader='neighbor'"), call(one, loader="full", **gat)),
        (("trained on whole", "train on one process"), call(one, "scgc", clusters=0, width=8)),
        (("2 batches", "has 1 graphs", "fewer processes"), call(graphs(1), **gat)),
        (("4 batches", "accumulate 2", "has 3 graphs"), call(graphs(3), accumulate=2, **gat)),
        (("batch norm", "norm='layer'", "gin"), call(graphs(), encoder="gin", width=8)),
        (("batch norm", "norm='none'"), call(graphs(), norm="batch", encoder="gcn", width=8)),
        (("batch norm",), call(graphs(), "simsiam", width=8, encoder="gcn", norm="none")),
        (("accumulate is 2", "equal"), call(graphs(), "paretognn", **pareto)),
        (("unknown method", "graphmae"), call(graphs(), "graphmea")),
        (("lr", "above 0"), call(graphs(), lr=-1.0)),
        (("GPU",), call(graphs(), device="cuda:0")),
        ((rank, "missing.npz"), call("missing.npz" if RANK else graphs())),
        (("col.npy", "cut short"), call(str(out / "stored-cut"), **gat)),
        ((rank, "x.npy is missing"), call(str(out / ("stored-gone" if RANK else "stored")), **gat)),
        (("differ in seed",), call(graphs(), seed=RANK, **gat)),
        (("differ in settings",), call(graphs(), lr=0.1 + RANK, **gat)),
        (("differ in data",), call(graphs(seed=RANK), **gat)),
    ):
        said = refused(graphssl.UserError, *words, call=given)
        assert "\n" not in said
        assert not (out / "refused").exists()
        assert not processes.joined()
    for name, text, word in (("WORLD_SIZE", "two", "torchrun"), (processes.TIMEOUT, "-1", "seconds")):
        before = os.environ[name]
        os.environ[name] = text
        refused(graphssl.UserError, name, word, call=call(graphs()))
        os.environ[name] = before
    before = os.environ.pop("GROUP_RANK")
    refused(graphssl.UserError, "GROUP_RANK", "torchrun", call=call(graphs()))
    os.environ["GROUP_RANK"] = before


def check_a_contrast_and_a_balance_of_gradients_train(out):
    for data, method, settings in (
        (one_graph(), "grace", {"width": 8, "hidden": 8, "norm": "none", "loader": "neighbor", **QUIET}),
        (graphs(), "paretognn", {"balance": "mgda", "encoder": "gcn", "norm": "none", **QUIET}),
    ):
        run = graphssl.pretrain(data, method, **settings)
        assert len(run.lines) == 2
        with processes.group(CPU):
            assert (
                processes.differing({"weights": [t.tolist() for t in weights(run)], "loss": run.lines[-1]["loss"]})
                is None
            )


def check_objects_that_each_process_made_start_from_those_of_the_first(out):
    torch.manual_seed(RANK)
    given = nn.Linear(5, 4)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = given

        def forward(self, x, edge_index):
            return self.map(x)

    run = graphssl.pretrain(graphs(), "graphmae", encoder=Own(), decoder="gcn", **QUIET)
    with processes.group(CPU):
        assert processes.differing({"weights": [t.tolist() for t in weights(run)]}) is None


def checks(out: Path) -> None:
    failed = {}
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            began = time.monotonic()
            try:
                check(out)
            except BaseException:
                failed[name] = traceback.format_exc()
            print(f"{time.monotonic() - began:5.1f} s {name}", file=sys.stderr)
    (out / f"rank{RANK}.json").write_text(json.dumps(failed))


def command(out: Path, *words: str) -> int:
    """A command line whose second process is killed at its fourth step, unless it was before."""
    from graphssl.cli import main

    plain, steps = GraphMAE.after_step, []
    runner.Saver.due = lambda self: True

    def after_step(self, progress):
        plain(self, progress)
        steps.append(progress)
        if len(steps) == 4 and RANK == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    GraphMAE.after_step = after_step
    status = main([*words, "--out", str(out / "cut"), "--resume"])
    steps_after = len(steps)
    GraphMAE.after_step = plain
    (out / f"steps{RANK}.json").write_text(json.dumps(steps_after))
    return status or main([*words, "--out", str(out / "straight"), "--quiet"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[2])
    sys.exit(checks(place) if sys.argv[1] == "checks" else command(place, *sys.argv[3:]))
