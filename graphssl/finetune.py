"""Encoder and a linear head trained together on labels, from a pretrained start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from graphssl.data import Dataset, Transform, random_splits
from graphssl.data.loader import Batches, Full
from graphssl.encoder import Encoder
from graphssl.errors import Diverged, UserError, unknown
from graphssl.graph import Graph
from graphssl.probes.metrics import accuracy, auc, mean_absolute_error, root_mean_square_error
from graphssl.recipes.base import check
from graphssl.train import generator_for, seeded

Loss = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], float]  # (outputs [M, C], labels of those rows) -> the higher the better
CLASSES, YES_OR_NO, NUMBERS = "classes", "yes or no", "numbers"  # kinds of labels


def labelled_rows(data: Dataset, y: Tensor, split: str | None) -> tuple[str, Tensor, Tensor]:
    """Name, and labelled training and validation rows, of the first repeat of ``split``; None: the first split.

    Raises UserError where there is no such split, or none of its training rows has a label in ``y``.
    """
    if not data.splits:
        raise UserError(f"data set {data.name!r} has no split to learn labels on; give one with splits")
    name = split or next(iter(data.splits))
    if name not in data.splits:
        raise unknown(f"split of {data.name}", name, data.splits)
    parts = data.splits[name][0]
    train, val = (rows[known(y[rows])] for rows in (parts.train, parts.val))
    if not len(train):
        raise UserError(f"split {name!r} of {data.name!r} has no labelled training rows; choose another")
    return name, train, val


def loader_for(
    data: Dataset, transform: Transform, device: torch.device, batch_size: int, seed: int
) -> Full | Batches:  # fmt: skip
    """Batches of a set of graphs or items, the whole graph of any other."""
    if data.task == "graph":
        return Batches(data, transform, device, batch_size, seed)
    return Full(data, transform, device)


def finetune(
    encoder: Encoder, data: Dataset, transform: Transform, *, split: str | None = None, epochs: int = 100,
    lr: float = 1e-3, head_lr: float = 1e-2, weight_decay: float = 1e-4, batch_size: int = 32, seed: int = 0,
    labels: float = 1.0, score: Score | None = None,
) -> tuple[Encoder, nn.Linear, list[dict[str, float]], dict[str, object]]:  # fmt: skip
    """A copy of ``encoder`` and a new linear head, trained on the first repeat of ``split`` (None: the first split).

    Integer labels are classes (cross-entropy); float labels are yes or no where all are 0, 1 or missing (binary
    cross-entropy) and numbers otherwise (squared error). ``labels`` is the share, above 0 and up to 1, of the labelled
    training rows that is used, drawn with ``seed``: of each class alike, one of each at least. The epoch with the
    lowest loss on all validation rows, or with ``score`` the highest of their outputs on the CPU, is kept, or the last
    where the split has none. Labels of test rows are not read. Returns encoder, head, a line an epoch and what was
    chosen. Raises UserError where labels or splits are missing or a setting is out of its range, and Diverged where the
    loss is not finite, or that of the validation rows, or their score, in no epoch.
    """
    if data.y is None or data.task == "link":
        raise UserError(f"data set {data.name!r} has no labels to finetune on; give one that has")
    name, train, val = labelled_rows(data, data.y, split)
    rates = {"lr": lr, "head_lr": head_lr, "weight_decay": weight_decay, "labels": labels}
    counts = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    for key, value in {**rates, **counts}.items():
        check(key, value, float if key in rates else int)
    if epochs < 1:
        raise UserError(f"epochs is {epochs}; finetune for 1 or more")
    device, rows = encoder.device, torch.cat([train, val])
    kind, (loss_of, width) = kind_of(data.y[rows]), loss_for(data.y[rows])
    train = some_of(train, data.y, labels, seed)
    encoder = copy.deepcopy(encoder)
    with seeded(seed):
        head = nn.Linear(encoder.dim, width)
    head = head.to(device)
    groups = [{"params": encoder.parameters(), "lr": lr}, {"params": head.parameters(), "lr": head_lr}]
    optimizer = torch.optim.Adam(groups, weight_decay=weight_decay, fused=True)
    loader = loader_for(data, transform, device, batch_size, seed)
    by = "validation loss" if score is None else "validation score"
    best, kept = -float("inf"), None
    lines: list[dict[str, float]] = []
    for epoch in range(epochs):
        with seeded(int(torch.randint(2**62, (), generator=generator_for(seed, epoch))), device):
            order = train[np.random.default_rng([seed, epoch]).permutation(len(train))]
            line: dict[str, float] = {"epoch": epoch + 1, "step": epoch + 1}
            line["loss"] = one_pass(encoder, head, loader, order, data.y, loss_of, optimizer)
        if not np.isfinite(line["loss"]):
            raise Diverged(f"finetuning: the loss is not finite in epoch {epoch + 1} of {epochs}; try a smaller lr")
        found = float(epoch)  # the last is the best where nothing tells
        if len(val):
            if score is None:
                with torch.no_grad():
                    line[by] = one_pass(encoder, head, loader, val, data.y, loss_of)
            else:
                line[by] = score(outputs(encoder, head, loader, val), data.y[val])
            found = -line[by] if score is None else line[by]
        lines.append(line)
        if np.isfinite(found) and found > best:
            best, kept = found, copy.deepcopy((encoder.state_dict(), head.state_dict()))
    if kept is None:
        raise Diverged(f"finetuning: the {by} is finite in none of {epochs} epochs; try a smaller lr")
    encoder.load_state_dict(kept[0])
    head.load_state_dict(kept[1])
    kept_by = f"{'lowest' if score is None else 'highest'} {by}" if len(val) else "last epoch"
    chosen: dict[str, object] = {
        "split": name, "kept": kept_by, **rates, **counts, "labelled": len(train), "validation": len(val),
        "learned": kind,
    }  # fmt: skip
    return encoder.eval(), head.eval(), lines, chosen


def some_of(rows: Tensor, y: Tensor, share: float, seed: int) -> Tensor:
    """A ``share`` of the labelled ``rows``, of each class alike and one of each at least; in their order."""
    if share == 1:
        return rows
    part = y[rows] if y.is_floating_point() else y[rows].flatten()
    return rows[random_splits(part, repeats=1, seed=seed, train=share, val=0.0)[0].train]


def known(y: Tensor) -> Tensor:
    """Which of the labels ``y`` [n] or [n, T] are there: not negative, or not all NaN."""
    there = y.isfinite() if y.is_floating_point() else y >= 0
    return there.any(1) if y.ndim == 2 else there


def kind_of(y: Tensor) -> str:
    """What labels like ``y`` are: classes, or of floats yes or no (all 0, 1 or missing) and numbers."""
    if not y.is_floating_point():
        return CLASSES
    there = y[y.isfinite()]
    return YES_OR_NO if bool(((there == 0) | (there == 1)).all()) else NUMBERS


def loss_for(y: Tensor) -> tuple[Loss, int]:
    """The loss for labels like ``y`` and the width of the head."""
    kind = kind_of(y)
    if kind == CLASSES:
        return lambda out, target: F.cross_entropy(out, target.flatten().long()), int(y.max()) + 1
    each = F.binary_cross_entropy_with_logits if kind == YES_OR_NO else F.mse_loss

    def loss(out: Tensor, target: Tensor) -> Tensor:
        target = target.view(len(out), -1).float()
        seen = target.isfinite()
        return each(out[seen], target[seen])

    return loss, 1 if y.ndim == 1 else y.size(1)


def figures(out: Tensor, y: Tensor, kind: str) -> dict[str, float]:
    """How right outputs [M, C] of a head are for the labels ``y`` [M] or [M, T], by name, the headline first.

    Accuracy of classes; the area under the ROC curve of yes or no, its mean over the columns that have both; the mean
    absolute error and the root of the mean square of numbers. Raises UserError where none of that is defined.
    """
    if not len(y):
        raise UserError("the split has no labelled test rows; label some")
    if kind == CLASSES:
        return {"accuracy": float(accuracy(out, y.flatten()))}
    y = y.view(len(out), -1)
    if kind == NUMBERS:
        there = y.isfinite()
        metrics = {"MAE": mean_absolute_error, "RMSE": root_mean_square_error}
        return {name: float(metric(out[there], y[there])) for name, metric in metrics.items()}
    columns = [(scores[truth.isfinite()], truth[truth.isfinite()]) for scores, truth in zip(out.T, y.T, strict=True)]
    both = [float(auc(scores, truth)) for scores, truth in columns if len(truth.unique()) > 1]
    if not both:
        raise UserError("the test rows are all yes or all no, so that the area under the ROC curve is undefined")
    return {"AUC": sum(both) / len(both)}


def one_pass(
    encoder: Encoder, head: nn.Module, loader: Full | Batches, rows: Tensor, y: Tensor, loss_of: Loss,
    optimizer: Optimizer | None = None,
) -> float:  # fmt: skip
    """The mean loss over the items at ``rows``, with optimizer steps where there is an optimizer."""
    encoder.train(optimizer is not None)
    total = 0.0
    for graph, part in batches_of(loader, rows):
        codes = _codes(encoder, loader, graph, part)
        loss = loss_of(head(codes), y[part].to(codes.device))
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        total += loss.item() * len(part)
    return total / len(rows)


@torch.no_grad()
def outputs(encoder: Encoder, head: nn.Module, loader: Full | Batches, rows: Tensor) -> Tensor:
    """What the head says of the items at ``rows`` [M], without dropout, on the CPU: [M, C]."""
    encoder.eval()
    parts = []
    for graph, part in batches_of(loader, rows):
        parts.append(head(_codes(encoder, loader, graph, part)).float().cpu())
    return torch.cat(parts)


def _codes(encoder: Encoder, loader: Full | Batches, graph: Graph, part: Tensor) -> Tensor:
    """Codes [M, D] of the items ``part`` [M] that ``batches_of`` gave with ``graph``."""
    return encoder(graph)[part.to(encoder.device)] if isinstance(loader, Full) else encoder.of_graphs(graph)


def batches_of(loader: Full | Batches, rows: Tensor) -> Iterator[tuple[Graph, Tensor]]:
    """Graphs and which of ``rows`` they stand for: the one graph with all of them, or batches of graphs."""
    if isinstance(loader, Full):
        yield loader.graph, rows
        return
    for part in rows.split(loader.batch_size):
        yield loader.of(part.tolist()), part
