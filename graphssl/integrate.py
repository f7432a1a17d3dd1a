"""WAS: Decoupling Weighing and Selecting for Integrating Multiple Graph Pre-training Tasks, Fan et al., ICLR 2024.

arXiv:2403.01400. Reference: TianyuFan0504/WAS at 263ad09, node-level/src/train.py and models.py. It learns from labels,
and so stands beside finetuning; without labels there is ``graphssl.methods.Blend``, which is ours.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from graphssl.data import Dataset
from graphssl.data.loader import Batches, Full
from graphssl.encoder import Encoder
from graphssl.errors import Diverged, UserError
from graphssl.finetune import batches_of, labelled_rows, loader_for, one_pass
from graphssl.losses import standardise
from graphssl.pretrained import Pretrained, fingerprint, label_marks
from graphssl.recipes.base import Spec, adam, check
from graphssl.teacher import Teacher
from graphssl.train import generator_for, memory_advice, seeded


def was(
    teachers: Sequence[Pretrained | Any], labelled: Any = None, *, split: str | None = None,
    student: Pretrained | None = None, epochs: int = 200, lr: float = 1e-2, weight_decay: float = 5e-4,
    beta: float = 0.5, temperature: float = 1.0, momentum: float = 0.1, batch_size: int = 32, seed: int = 0,
) -> Pretrained:  # fmt: skip
    """A student trained on the training labels of ``labelled``, and on what its frozen teachers say of all its nodes.

    Each teacher predicts classes by a linear head, fitted on the training labels; a run that was finetuned on them
    predicts by its own. For every node a selector picks teachers, and a weigher says how much each counts; the student
    minimises the cross-entropy of the labels, that of the weighed predictions, and, ``beta`` times, its divergence from
    these. Of a graph set the teachers are heard on the training graphs.

    Args:
        teachers: two or more runs of ``pretrain``, or arrays of codes, a row a node (of a graph set: a graph).
        labelled: the data set whose labels are learned from; None: the one that the student was pretrained on. Labels
            of the training rows of ``split`` (None: its first one) fit the student, those of the validation rows choose
            the epoch and the heads (the lowest loss; without such rows the last epoch). Test labels are not read.
        student: the run whose encoder it starts from, ``pretrain(..., epochs=0)`` for a new one; None: a new one of the
            first teacher's shape, with weights from ``seed``.
        temperature: of the predictions that the student is to match.
        momentum: the share that the selector's vectors keep of their old selves in a step (the reference's m is 1 less
            that); else they follow the weigher's, and no gradient moves them.

    The result's ``predict`` gives class scores; ``history`` has, of each teacher, its mean weight and how often it was
    selected. Its codes have seen labels, so that ``evaluate`` refuses to judge them on that data. Raises UserError
    where labels or splits are missing or no classes, or where teachers and data do not fit.
    """
    runs = [teacher for teacher in teachers if isinstance(teacher, Pretrained)]
    if len(teachers) < 2:
        raise UserError(f"got {len(teachers)} teachers to weigh and select from; give two or more")
    if student is None and not runs:
        raise UserError("all teachers are arrays, so there is no shape for the student; give student=pretrain(...)")
    rates = {"lr": lr, "weight_decay": weight_decay, "beta": beta, "temperature": temperature, "momentum": momentum}
    counts = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    for key, value in {**rates, **counts}.items():
        check(key, value, float if key in rates else int)
    if epochs < 1:
        raise UserError(f"epochs is {epochs}; choose 1 or more")
    start = _untrained(runs[0], seed) if student is None else student
    data = start.data(labelled)
    if data.y is None or data.task == "link" or data.y.is_floating_point() or data.y.numel() != len(data.y):
        raise UserError(f"was learns classes, one an item, and data set {data.name!r} has none; give one that has")
    name, train, val = labelled_rows(data, data.y, split)
    y = data.y.flatten().long()
    classes = int(y[torch.cat([train, val])].max()) + 1
    mark = fingerprint(data)
    marks = label_marks(data, mark)
    for run in (*runs, start):
        if marks & set(run.config["labels_seen"]) and run.config.get("finetuned", {}).get("split") != name:
            raise UserError(f"{run!r} has seen labels of other rows than the training part of {name!r}; leave it out")

    device = start.device
    with memory_advice(f"weighing {len(teachers)} teachers on {data.name}"):
        heard = [_predictions(teacher, data, mark, y, train, val, classes) for teacher in teachers]
        views = (torch.stack(heard, 1) / temperature).softmax(2).to(device)
        encoder = copy.deepcopy(start.encoder)
        with seeded(seed):
            head, weigher = nn.Linear(encoder.dim, classes), Weigher(classes, len(teachers))
        head, weigher = head.to(device), weigher.to(device)
        loader = loader_for(data, start.plan.transform, device, batch_size, seed)
        lines = _train(
            encoder, head, weigher, views, y, loader, train, val, _names(teachers),
            epochs=epochs, lr=lr, weight_decay=weight_decay, beta=beta, temperature=temperature, momentum=momentum,
            seed=seed,
        )  # fmt: skip
    method = copy.deepcopy(start.method)
    method.encoder.load_state_dict(encoder.state_dict())
    chosen = {
        "dataset": data.name, "split": name, "kept": "lowest validation loss" if len(val) else "last epoch",
        "teachers": _names(teachers), "from": "untrained" if student is None else start.name, **rates, **counts,
    }  # fmt: skip
    config = {k: v for k, v in start.config.items() if k != "best"} | {"method": "was", "finetuned": chosen}
    for key, new in (("seen", {mark}), ("labels_seen", marks)):
        config[key] = sorted(new.union(*(run.config[key] for run in (*runs, start))))
    plan = replace(start.plan, method=method.eval())
    return Pretrained(plan, start.recipe, config, dataset=data, lines=lines, module=start.module, head=head.eval())


def _untrained(run: Pretrained, seed: int) -> Pretrained:
    """A run of the same settings with weights from ``seed``, as ``pretrain(..., epochs=0)`` would return it."""
    kept = {k: v for k, v in run.config.items() if k not in ("best", "finetuned", "start", "steps")}
    settings = {k: 0 if k == "epochs" else v for k, v in kept["settings"].items()}
    fresh = {"settings": settings, "seed": seed, "epochs": 0, "early_stop": None, "seen": [], "labels_seen": []}
    config = {**kept, **fresh}
    module = {} if run.module is None else {"encoder": copy.deepcopy(run.module)}
    with seeded(seed):
        plan = run.recipe.plan(Spec(**config["spec"]), {**settings, **module})
    plan.method.to(run.device).eval()
    return Pretrained(plan, run.recipe, config, dataset=run.dataset, module=run.module)


class Weigher(nn.Module):
    """How much each of S teachers counts for a node, and whether at all, from the student's C class scores.

    A teacher's affinity with a node is the product of the node's scores with the teacher's vector and a vector shared
    by all; the weigher's vectors are learned, the selector's follow them (the paper's siamese branches).
    """

    def __init__(self, classes: int, teachers: int):
        super().__init__()
        self.weigh = Affinity(classes, teachers)
        self.select = Teacher(self.weigh)
        self.mix = nn.Linear(teachers, teachers, bias=False)

    def forward(self, scores: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Scores [M, C] to shares that sum to one, and what was selected, ones and zeros, both [M, S].

        A teacher is selected with its chance over that of the node's likeliest one, which always is. The draw passes
        its gradient on to the chances, straight through a relaxed Bernoulli of temperature 1. In the shares it stands
        for a factor, as in a masked softmax; the reference's gradient reaches it through the affinities only, by which
        a teacher that speaks against the labels is selected no less.
        """
        chance = self.mix(self.select.module(scores)).softmax(1)
        chance = (chance / chance.amax(1, keepdim=True)).clamp(1e-6, 1 - 1e-6)
        noise = torch.rand(chance.shape, generator=generator, device=chance.device).clamp(1e-6, 1 - 1e-6)
        soft = (chance.logit() + noise.logit()).sigmoid()  # the difference of two Gumbel draws is logistic
        hard = ((soft > 0.5) | (chance == chance.amax(1, keepdim=True))).to(soft.dtype)
        selected = hard + soft - soft.detach()
        affinity = self.weigh(scores)
        highest = affinity.detach().masked_fill(hard == 0, -torch.inf).amax(1, keepdim=True)
        counted = (affinity - highest).clamp(max=30).exp() * selected  # one not selected may lie far above
        return counted / counted.sum(1, keepdim=True), hard


class Affinity(nn.Module):
    """Class scores [M, C] times a vector of each of S teachers and one that all share, [M, S]."""

    def __init__(self, classes: int, teachers: int):
        super().__init__()
        self.own = nn.Linear(classes, teachers, bias=False)
        self.shared = nn.Linear(classes, 1, bias=False)

    def forward(self, scores: Tensor) -> Tensor:
        return scores @ (self.own.weight * self.shared.weight).T


def _train(
    encoder: Encoder, head: nn.Linear, weigher: Weigher, views: Tensor, y: Tensor, loader: Full | Batches,
    train: Tensor, val: Tensor, names: list[str], *, epochs: int, lr: float, weight_decay: float, beta: float,
    temperature: float, momentum: float, seed: int,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains all three on what the teachers think, ``views`` [I, S, C]; encoder and head end with the best epoch."""
    device = views.device
    modules = nn.ModuleList([encoder, head, weigher])
    trained = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizer = adam(lr, weight_decay)(trained)
    best, kept = float("inf"), copy.deepcopy((encoder.state_dict(), head.state_dict()))
    lines: list[dict[str, float]] = []
    for epoch in range(epochs):
        generator = generator_for(seed, epoch, 1, device)
        with seeded(int(torch.randint(2**62, (), generator=generator_for(seed, epoch))), device):
            order = train[np.random.default_rng([seed, epoch]).permutation(len(train))]
            line = {"epoch": epoch + 1, "step": epoch + 1, **dict.fromkeys(("loss", "labels", "mixture", "match"), 0.0)}
            encoder.train()
            for graph, part in batches_of(loader, order):
                codes = encoder(graph)
                whole = isinstance(loader, Full)
                scores = head(codes if whole else encoder.pool(graph, codes))
                own = part.to(device) if whole else torch.arange(len(part), device=device)
                weigher.select.follow(weigher.weigh, momentum)
                shares, selected = weigher(scores, generator)
                said = views if whole else views[part.to(device)]
                heard = (shares[:, :, None] * said).sum(1).clamp(min=1e-10).log()
                truth = y[part].to(device)
                losses = {
                    "labels": F.cross_entropy(scores[own], truth),
                    "mixture": F.nll_loss(heard[own], truth),
                    "match": F.kl_div(
                        (scores / temperature).log_softmax(1), heard.detach(), reduction="batchmean", log_target=True
                    ),
                }
                loss = losses["labels"] + losses["mixture"] + beta * temperature**2 * losses["match"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                found = {"loss": loss, **losses}
                for place, name in enumerate(names):
                    found |= {f"{name} weight": shares[:, place].mean(), f"{name} selected": selected[:, place].mean()}
                for key, value in found.items():
                    line[key] = line.get(key, 0.0) + value.item() * len(part) / len(train)
        if not np.isfinite(line["loss"]):
            raise Diverged(f"was: the loss is not finite in epoch {epoch + 1} of {epochs}; try a smaller lr")
        if len(val):
            with torch.no_grad():
                line["validation loss"] = one_pass(encoder, head, loader, val, y, F.cross_entropy)
        lines.append(line)
        if line.get("validation loss", -1.0) <= best:
            best = line.get("validation loss", best)
            kept = copy.deepcopy((encoder.state_dict(), head.state_dict()))
    encoder.load_state_dict(kept[0])
    head.load_state_dict(kept[1])
    encoder.eval()
    return lines


def _names(teachers: Sequence[Any]) -> list[str]:
    """What the log calls each teacher: its method, numbered where two have the same."""
    names = [teacher.name if isinstance(teacher, Pretrained) else "codes" for teacher in teachers]
    return [f"{n} {names[:i].count(n) + 1}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _predictions(
    teacher: Any, data: Dataset, mark: str, y: Tensor, train: Tensor, val: Tensor, classes: int
) -> Tensor:  # fmt: skip
    """A teacher's class scores [I, C] on the CPU."""
    if isinstance(teacher, Pretrained) and teacher.head is not None and mark in teacher.config["labels_seen"]:
        found = teacher.predict(data)
        if found.size(1) != classes:
            raise UserError(f"{teacher!r} tells {found.size(1)} classes apart, but {data.name!r} has {classes}")
        return found
    codes = teacher.embed(data) if isinstance(teacher, Pretrained) else torch.as_tensor(np.asarray(teacher)).float()
    if codes.ndim != 2 or len(codes) != len(y):
        raise UserError(
            f"a teacher's codes have shape {tuple(codes.shape)}, but {data.name!r} has {len(y)} labels; give one row a "
            "label, in the order of the data"
        )
    if not codes.isfinite().all():
        raise UserError("a teacher's codes have values that are NaN or infinite; leave it out, or replace them")
    return fit_head(standardise(codes), y, train, val, classes)


def fit_head(
    codes: Tensor, y: Tensor, train: Tensor, val: Tensor, classes: int, steps: int = 200, lr: float = 1e-2,
    weight_decay: float = 5e-4,
) -> Tensor:  # fmt: skip
    """Class scores [I, C] of a linear head on ``codes`` [I, D], fitted on the rows ``train`` from zero weights.

    The step with the lowest loss on the rows ``val`` is kept, be it the one before the first; without such rows the
    last. Codes that tell nothing of the labels so keep predicting all classes alike, where there are rows to see it by.
    """
    weight, bias = torch.zeros(codes.size(1), classes, requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=lr, weight_decay=weight_decay)
    best, kept = float("inf"), torch.zeros(len(codes), classes)
    for step in range(steps + 1):
        scores = codes @ weight + bias
        judged = F.cross_entropy(scores[val], y[val]).item() if len(val) else float(-step)
        if judged < best:
            best, kept = judged, scores.detach()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(scores[train], y[train]).backward()
        optimizer.step()
    return kept
