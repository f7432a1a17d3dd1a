"""Protocols for codes of nodes: a linear layer, the nearest neighbours, and a few labels.

What they fit takes any rows, so that graph.py judges codes of graphs by the same neighbours and draws.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Generator, Tensor

from graphssl.data.dataset import Dataset, Split
from graphssl.errors import UserError
from graphssl.probes.base import (
    Exam,
    Examiner,
    Exams,
    Fitted,
    Protocol,
    Seen,
    default_splits,
    labels,
    register,
    row_exam,
)
from graphssl.probes.metrics import Metric, accuracy, class_auc

WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
# weight_decay_f of configs.yml, github.com/THUDM/GraphMAE, commit 5e73356: fixed there, not chosen on validation
REFERENCE_DECAYS = {"cora": 1e-4, "citeseer": 1e-2, "pubmed": 1e-4}
RATE = 0.01
EPOCHS = 300
INITIALISATIONS = 3

NEIGHBOURS = (1, 5, 10, 20)
TEMPERATURE = 0.07
CHUNK = 1024  # rows whose similarities are held at once

SHOTS = (5, 3, 1)  # labels a class
DRAWS = 10
DRAW_SEED = 0
PENALTY = 1.0  # C of the logistic regression


def set_split_exams(codes: Tensor, dataset: Dataset) -> Exams[Tensor]:
    """One exam for each repeat of the data set's default split, scored by the data set's metric."""
    y, splits = _y(dataset), default_splits(dataset)
    name, metric = _metric(dataset, splits)
    exams = (row_exam(codes, y, s.train, s.val, s.test, metric, dataset.name) for s in splits)
    return Exams(exams, len(splits), "split", {name: metric})


def _metric(dataset: Dataset, splits: tuple[Split, ...]) -> tuple[str, Metric]:
    """What the data set asks for, by name."""
    if dataset.metric != "auc":
        return "accuracy", accuracy
    if any(int(_y(dataset)[torch.cat([s.train, s.val])].max()) > 1 for s in splits):
        raise UserError(
            f"data set {dataset.name!r} asks for AUC, which needs the two classes 0 and 1; use metric='accuracy'"
        )
    return "AUC", class_auc


def _y(dataset: Dataset) -> Tensor:
    assert dataset.y is not None  # ``judge`` has looked
    return dataset.y


def fit_linear(seen: Seen[Tensor], seeds: tuple[int, ...]) -> Fitted[Tensor]:
    """A linear layer for each seed, of the weight decay that does best on the validation rows after the last epoch.

    All weight decays and initialisations train at once, as one wide layer; each is what ``torch.optim.Adam`` makes of
    it alone. The head of graphmae/evaluation.py, github.com/THUDM/GraphMAE, commit a8a51cf, which returns the same two
    figures, after the last and the best epoch; its configurations fix one weight decay a data set where we choose.
    Where there is that one for the data set, the layer of it gives a third figure.
    """
    G, S, C, D = len(WEIGHT_DECAYS), len(seeds), seen.num_classes, seen.train.size(1)
    starts = [_initial(C, D, seed, seen.train.dtype) for seed in seeds]
    weight = torch.cat([w for w, _ in starts] * G).requires_grad_()  # [G * S * C, D]
    bias = torch.cat([b for _, b in starts] * G).requires_grad_()
    decay = torch.tensor(WEIGHT_DECAYS, dtype=weight.dtype).repeat_interleave(S * C)
    truth = seen.train_y.repeat_interleave(G * S)
    optimizer = torch.optim.Adam([weight, bias], lr=RATE)
    best = torch.full((G * S,), -1.0, dtype=torch.double)
    kept_weight, kept_bias = torch.empty_like(weight), torch.empty_like(bias)
    score = best
    for _ in range(EPOCHS):
        # The mean over rows and the sum over members: no member's gradient depends on another.
        out = F.linear(seen.train, weight, bias).view(-1, C)
        loss = F.cross_entropy(out, truth, reduction="sum") / len(seen.train_y)
        weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        with torch.no_grad():
            weight.grad.addcmul_(weight, decay[:, None])
            bias.grad.addcmul_(bias, decay)
            optimizer.step()
            score = seen.metric(_heads(seen.val, weight, bias, C), seen.val_y)  # [G * S]
            better = score >= best
            best = torch.where(better, score, best)
            rows = better.repeat_interleave(C)
            kept_weight[rows], kept_bias[rows] = weight[rows], bias[rows]

    table = score.view(G, S)
    # Of equal ones the largest weight decay, which stands last.
    grid = G - 1 - table.flip(0).argmax(0)  # [S]
    members = grid * S + torch.arange(S)

    def of(weight: Tensor, bias: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        chosen = weight.detach().view(G * S, C, D)[members].reshape(-1, D)
        return chosen, bias.detach().view(G * S, C)[members].reshape(-1)

    layers = {"last epoch": of(weight, bias, members), "best validation epoch": of(kept_weight, kept_bias, members)}
    if seen.dataset in REFERENCE_DECAYS:
        fixed = WEIGHT_DECAYS.index(REFERENCE_DECAYS[seen.dataset]) * S + torch.arange(S)
        layers["last epoch, GraphMAE's weight decay"] = of(weight, bias, fixed)

    def predict(rows: Tensor) -> dict[str, Tensor]:
        return {figure: _heads(rows, *layer, C) for figure, layer in layers.items()}

    return Fitted(predict, tuple(f"weight decay {WEIGHT_DECAYS[g]:g}" for g in grid.tolist()))


def _initial(C: int, D: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of a ``torch.nn.Linear`` made after ``torch.manual_seed(seed)``."""
    generator, bound = Generator().manual_seed(seed), D**-0.5
    weight = torch.empty(C, D).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(C).uniform_(-bound, bound, generator=generator)
    return weight.to(dtype), bias.to(dtype)


def _heads(rows: Tensor, weight: Tensor, bias: Tensor, C: int) -> Tensor:
    """Scores [I, M, C] of ``rows`` [M, D] by I linear layers that lie one after another in ``weight`` [I * C, D]."""
    return F.linear(rows, weight, bias).view(rows.size(0), -1, C).transpose(0, 1)


def fit_knn(seen: Seen[Tensor], seeds: tuple[int, ...]) -> Fitted[Tensor]:
    """Votes of the nearest training rows; how many of them vote is chosen on the validation rows. Nothing is random.

    The weighted vote of section 3.4, arXiv:1805.01978, with its temperature.
    """
    C, train = seen.num_classes, F.normalize(seen.train)

    def votes(rows: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
        """Shares of the votes [M, C] for each k."""
        parts: list[list[Tensor]] = [[] for _ in ks]
        for chunk in rows.split(CHUNK):
            similarity, place = (F.normalize(chunk) @ train.t()).topk(min(max(ks), len(train)))
            weights = (similarity / TEMPERATURE).exp()
            for part, k in zip(parts, ks, strict=True):
                shares = weights.new_zeros(len(chunk), C).scatter_add_(1, seen.train_y[place[:, :k]], weights[:, :k])
                part.append(shares / shares.sum(1, keepdim=True))
        return [torch.cat(part) for part in parts]

    score = torch.stack([seen.metric(share, seen.val_y) for share in votes(seen.val, NEIGHBOURS)])
    k = NEIGHBOURS[len(NEIGHBOURS) - 1 - int(score.flip(0).argmax())]  # of equal ones the largest
    return Fitted(lambda rows: {"": votes(rows, (k,))[0][None]}, (f"k = {k}",))


def set_few_exams(
    codes: Tensor, dataset: Dataset, shots: int = max(SHOTS), choosing: bool = False
) -> Exams[Tensor]:  # fmt: skip
    """Ten exams, in each up to ``shots`` training rows a class, drawn from those that the default split does not test.

    With ``choosing`` they are drawn from its training rows alone and its validation rows choose. Where the split is
    repeated, draws go through its repeats in turn. A class with fewer rows gives all it has.
    """
    y, splits = _y(dataset), default_splits(dataset, needs_validation=choosing)
    name, metric = _metric(dataset, splits)

    def exams() -> Iterator[Exam[Tensor]]:
        for draw in range(DRAWS):
            split = splits[draw % len(splits)]
            pool, val = (split.train, split.val) if choosing else (torch.cat([split.train, split.val]), split.val[:0])
            train = _draw(y, pool, shots, np.random.default_rng([DRAW_SEED, draw]))
            yield row_exam(codes, y, train, val, split.test, metric, dataset.name)

    return Exams(exams(), DRAWS, "draw", {name: metric})


def _draw(y: Tensor, rows: Tensor, shots: int, rng: np.random.Generator) -> Tensor:
    """Up to ``shots`` of ``rows`` of each class, one class after another."""
    order = rows[torch.from_numpy(rng.permutation(len(rows)))]
    classes = labels(y, order)
    return torch.cat([order[classes == c][:shots] for c in classes.unique()])


def fit_few(seen: Seen[Tensor], seeds: tuple[int, ...]) -> Fitted[Tensor]:
    """Logistic regression on codes of length one, for each number of labels; nothing is chosen and nothing is random.

    As eval/meta_eval.py, github.com/WangYueFt/rfs, commit 9337f9b (arXiv:2003.11539).
    """
    train, y = F.normalize(seen.train).double(), seen.train_y
    each = F.one_hot(y).cumsum(0).gather(1, y[:, None]).squeeze(1)  # the how manieth of its class a row is
    models = {}
    with threadpool_limits(1):
        for shots in SHOTS:
            some = each <= shots
            model = LogisticRegression(C=PENALTY, max_iter=1000, random_state=0)
            models[shots] = model.fit(train[some].numpy(), y[some].numpy())

    def predict(rows: Tensor) -> dict[str, Tensor]:
        unit, C = F.normalize(rows).double().numpy(), seen.num_classes
        said = {shots: shares_of(model, unit, C)[None] for shots, model in models.items()}
        return {f"{shots} label{'s' if shots > 1 else ''} a class": shares for shots, shares in said.items()}

    return Fitted(predict)


def shares_of(model: LogisticRegression, rows: np.ndarray, C: int) -> Tensor:
    """How likely ``model`` finds each of C classes, [M, C]; 0 for a class that it was shown no row of."""
    shares = torch.zeros(len(rows), C, dtype=torch.double)
    shares[:, torch.from_numpy(model.classes_)] = torch.from_numpy(model.predict_proba(rows)).double()
    return shares


_SPLIT = "The data set's own default split in all its repeats; labels of its training nodes only;"
_METRIC = "accuracy, or ROC AUC where the data set asks for it;"


node_linear = register(
    Protocol(
        name="node-linear",
        version=1,
        task="node",
        metric="accuracy",
        higher_is_better=True,
        about=f"{_SPLIT} one linear layer on the codes as they are, Adam at {RATE:g}, {EPOCHS} full-batch epochs, "
        f"weight decay of {', '.join(f'{w:g}' for w in WEIGHT_DECAYS)} chosen on validation after the last epoch; "
        f"{_METRIC} the score is that after the last epoch, the one after the best validation epoch stands beside it, "
        "and for Planetoid sets that of the weight decay that GraphMAE's configurations fix, as published figures do; "
        f"{INITIALISATIONS} initialisations of the layer on a single split, one on each of several.",
        judge=Examiner(set_split_exams, fit_linear, INITIALISATIONS),
    )
)

node_knn = register(
    Protocol(
        name="node-knn",
        version=1,
        task="node",
        metric="accuracy",
        higher_is_better=True,
        about=f"{_SPLIT} the nearest training nodes by cosine similarity vote with weight exp(similarity / "
        f"{TEMPERATURE:g}), their number of {', '.join(map(str, NEIGHBOURS))} chosen on validation; {_METRIC} nothing "
        "is random.",
        judge=Examiner(set_split_exams, fit_knn),
    )
)

node_few_shot = register(
    Protocol(
        name="node-few-shot",
        version=1,
        task="node",
        metric="accuracy",
        higher_is_better=True,
        about="Test nodes of the data set's own default split; labels of "
        f"{', '.join(map(str, SHOTS[:-1]))} and {SHOTS[-1]} nodes a class, drawn from its training and validation "
        f"nodes; logistic regression on codes scaled to length one, C = {PENALTY:g} as no labels are left to choose it "
        f"by; {_METRIC} the score is that with {SHOTS[0]} labels a class; {DRAWS} draws, from the repeats of the split "
        "in turn.",
        judge=Examiner(set_few_exams, fit_few),
    )
)
