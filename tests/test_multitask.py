"""Several tasks around one encoder: what is trained, what is logged, what a step costs."""

import pytest
import torch
from conftest import KINDS, F, generator, random_graph

import graphssl
from graphssl.augment import Drop
from graphssl.backbones import backbone
from graphssl.balance import BALANCES, MGDA, Balance, Equal, PCGrad, Uncertainty
from graphssl.encoder import Encoder
from graphssl.methods import BGRL, GAE, GRACE, Method, MultiTask
from graphssl.train import seeded, train

DROP = Drop(0.1, 0.1)


class Towards(Method):
    """Pulls the mean code towards a constant: a task whose gradient is known."""

    def __init__(self, encoder: Encoder, goal: float):
        super().__init__()
        self.encoder, self.goal = encoder, goal
        self.calls, self.backwards = 0, 0

    def forward(self, graph, generator=None):
        self.calls += 1
        loss = (self.encoder(graph).mean() - self.goal).square()
        if loss.requires_grad:
            loss.register_hook(self._count)
        return {"far": loss}

    def _count(self, gradient):
        self.backwards += 1


def encoder(seed: int = 0) -> Encoder:
    with seeded(seed):
        return Encoder(backbone("gcn", F, [8, 8]))


def losses_and_total(method, seed=0):
    with seeded(seed):
        losses = method(KINDS["citation"](), generator(seed))
        return losses, method.total(losses)


def test_each_task_keeps_its_own_losses_total():
    shared = encoder()
    one = GRACE(shared, 8, (DROP, DROP), 0.5)
    both = MultiTask({"contrast": one, "edges": GAE(shared)})
    losses, total = losses_and_total(both)
    assert list(losses) == ["contrast", "edges"]
    torch.testing.assert_close(total, losses["contrast"] + losses["edges"])


def test_the_gram_matrix_is_that_of_the_encoders_gradients():
    shared = encoder()
    tasks = {"a": GRACE(shared, 8, (DROP, DROP), 0.5), "b": GAE(shared), "c": Towards(shared, 1.0)}
    seen = []

    class Spy(Balance):
        needs_gram = True

        def forward(self, losses, gram=None):
            seen.append(gram)
            return torch.stack(losses).sum(), torch.ones(len(losses))

    losses, total = losses_and_total(MultiTask(tasks, Spy()))
    flat = []
    for loss in losses.values():
        flat.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(shared.parameters()), retain_graph=True)])
        )
    expected = torch.stack([torch.stack([(a * b).sum() for b in flat]) for a in flat])
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-6)
    total.backward()  # still possible: the graphs were kept


@pytest.mark.parametrize(("balance", "backwards"), [(Equal(), 1), (MGDA(), 2), (PCGrad(), 2)])
def test_a_step_is_one_forward_a_task_and_at_most_two_backwards(balance, backwards):
    shared = encoder()
    tasks = [Towards(shared, 1.0), Towards(shared, -1.0), Towards(shared, 2.0)]
    method = MultiTask({str(i): task for i, task in enumerate(tasks)}, balance)
    graph = KINDS["citation"]()
    list(train(method, lambda step: graph, torch.optim.SGD(method.parameters(), 1e-3), 1))
    assert [task.calls for task in tasks] == [1, 1, 1]
    assert max(task.backwards for task in tasks) == backwards


def test_mgda_gives_conflicting_tasks_a_step_that_raises_neither():
    shared = encoder()
    method = MultiTask({"up": Towards(shared, 1.0), "down": Towards(shared, -3.0)}, MGDA(normalize=False))
    losses, _ = losses_and_total(method)
    mean = losses["up"].item(), losses["down"].item()
    assert mean[0] < mean[1]  # between both goals, nearer to the first
    up, down = (method.logged()[f"{name} weight"].item() for name in ("up", "down"))
    # gradients 2 (m - 1) and 2 (m + 3) of the mean code m point against each other: the mixture vanishes
    m = 1 - mean[0] ** 0.5
    assert up * (m - 1) + down * (m + 3) == pytest.approx(0, abs=1e-4)


def test_the_log_has_each_tasks_loss_and_weight():
    run = graphssl.pretrain("citations-mini", "paretognn", width=16, inner=16, hidden=16, epochs=3, progress=False)
    names = ["features", "link", "node-graph", "node-subgraph", "decorrelation"]
    for name in names:
        assert len(run.history[name]) == len(run.history[f"{name} weight"]) == 3
    for line in run.lines:
        assert sum(line[f"{name} weight"] for name in names) == pytest.approx(1, abs=1e-5)
        weighed = sum(line[name] * line[f"{name} weight"] for name in names)
        assert line["loss"] == pytest.approx(weighed, rel=1e-4)


def test_one_task_alone_is_that_task():
    single = graphssl.pretrain(
        "citations-mini", "paretognn", tasks="link", width=16, inner=16, epochs=2, progress=False
    )
    assert single.lines[0]["loss"] == single.lines[0]["link"]
    assert single.lines[0]["link weight"] == 1


def test_no_weight_turns_nan_where_the_reference_does():
    """Codes without spread in some columns: the reference's decorrelation divides by their deviation of zero."""
    graph = KINDS["citation"]()
    data = graphssl.to_dataset(graph.replace(x=torch.zeros_like(graph.x)))
    with pytest.warns(UserWarning, match="collapse"):
        run = graphssl.pretrain(data, "paretognn", width=16, inner=16, hidden=16, epochs=3, progress=False, norm="none")
    assert all(value == value for line in run.lines for value in line.values())


def test_teachers_move_and_runs_load(tmp_path):
    shared = encoder()
    both = MultiTask({"predict": BGRL(shared, 8, (DROP, DROP)), "edges": GAE(shared)}, MGDA())
    whole = graphssl.pretrain("citations-mini", fit(both), epochs=4, progress=False)
    teacher = dict(whole.method.tasks["predict"].teacher.named_parameters())
    student = dict(whole.encoder.named_parameters())
    assert any(not torch.equal(teacher[f"module.{name}"], student[name]) for name in student)
    whole.save(tmp_path / "run")
    again = graphssl.load(tmp_path / "run", method=fit(both))
    assert torch.equal(again.embed("citations-mini"), whole.embed())


def fit(method: MultiTask) -> MultiTask:
    """The same kind of tasks for the shipped graph's width."""
    dim = graphssl.load_dataset("citations-mini").dim
    with seeded(0):
        shared = Encoder(backbone("gcn", dim, [8, 8]))
        return MultiTask({"predict": BGRL(shared, 8, (DROP, DROP)), "edges": GAE(shared)}, MGDA())


def test_refusals():
    with pytest.raises(ValueError, match="no tasks"):
        MultiTask({})
    with pytest.raises(ValueError, match="'b' has an encoder of its own"):
        MultiTask({"a": GAE(encoder()), "b": GAE(encoder())})
    shared = encoder()
    with pytest.raises(ValueError, match="without dots"):
        MultiTask({"a.b": GAE(shared)})
    with pytest.raises(ValueError, match=r"2 tasks came with Uncertainty\(3\)"):
        MultiTask({"a": GAE(shared), "b": GAE(shared)}, Uncertainty(3))
    for settings, words in (
        ({"tasks": "links"}, "did you mean 'link'"),
        ({"tasks": "link,link"}, "twice"),
        ({"balance": "mgdaa"}, "did you mean 'mgda'"),
    ):
        with pytest.raises(graphssl.UserError, match=words):
            graphssl.pretrain("citations-mini", "paretognn", epochs=0, **settings)


def test_a_frozen_encoder_has_nothing_to_balance():
    shared = encoder()
    shared.requires_grad_(False)
    method = MultiTask({"a": GRACE(shared, 8, (DROP, DROP), 0.5), "b": BGRL(shared, 8, (DROP, DROP))}, MGDA())
    _, total = losses_and_total(method)
    assert total.isfinite()
    assert method.logged()["a weight"] == 0.5


def test_pretexts_and_labels_are_those_of_the_tasks():
    shared = encoder()
    one, two = GAE(shared), GAE(shared)
    two.pretexts, two.sees_labels = ("partition",), True
    both = MultiTask({"one": one, "two": two})
    assert both.pretexts == ("partition",)
    assert both.sees_labels


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("method", ["paretognn", "selftask"])
def test_every_balance_trains_all_tasks(method, balance):
    small = {"width": 16, "inner": 16, "hidden": 16} if method == "paretognn" else {"width": 16, "groups": 3}
    data = random_graph(60, 0)
    run = graphssl.pretrain(data, method, tasks="all", balance=balance, epochs=2, progress=False, **small)
    names = list(run.method.tasks)
    assert len(names) == {"paretognn": 5, "selftask": 9}[method]
    assert all(line[name] == line[name] and f"{name} weight" in line for line in run.lines for name in names)
    start = dict(run.untrained().named_parameters())
    assert all(not torch.equal(p, start[n]) for n, p in run.encoder.named_parameters() if p.dim() > 1)
    if balance == "uncertainty":
        assert run.method.balance.log_variance.any()
