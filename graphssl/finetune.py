"""Encoder and a linear head trained together on labels, from a pretrained start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from graphssl.data import Dataset, Transform
from graphssl.data.loader import Batches, Full
from graphssl.encoder import Encoder
from graphssl.errors import Diverged, UserError, unknown
from graphssl.graph import Graph
from graphssl.recipes.base import check
from graphssl.train import generator_for, seeded

Loss = Callable[[Tensor, Tensor], Tensor]


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
    """Batches of a graph set, the whole graph of any other."""
    if data.task == "graph":
        return Batches(data, transform, device, batch_size, seed)
    return Full(data, transform, device)


def finetune(
    encoder: Encoder, data: Dataset, transform: Transform, *, split: str | None = None, epochs: int = 100,
    lr: float = 1e-3, head_lr: float = 1e-2, weight_decay: float = 1e-4, batch_size: int = 32, seed: int = 0,
) -> tuple[Encoder, nn.Linear, list[dict[str, float]], dict[str, object]]:  # fmt: skip
    """A copy of ``encoder`` and a new linear head, trained on the first repeat of ``split`` (None: the first split).

    Integer labels are classes (cross-entropy); float labels are yes or no where all are 0, 1 or missing (binary
    cross-entropy) and numbers otherwise (squared error). The epoch with the lowest validation loss is kept, or the last
    where the split has no validation rows. Labels of test rows are not read. Returns encoder, head, a line an epoch and
    what was chosen. Raises UserError where labels or splits are missing or a rate is not positive.
    """
    if data.y is None or data.task == "link":
        raise UserError(f"data set {data.name!r} has no labels to finetune on; give one that has")
    name, train, val = labelled_rows(data, data.y, split)
    rates = {"lr": lr, "head_lr": head_lr, "weight_decay": weight_decay}
    counts = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    for key, value in {**rates, **counts}.items():
        check(key, value, float if key in rates else int)
    if epochs < 1:
        raise UserError(f"epochs is {epochs}; finetune for 1 or more")
    device = encoder.device
    loss_of, width = loss_for(data.y[torch.cat([train, val])])
    encoder = copy.deepcopy(encoder)
    with seeded(seed):
        head = nn.Linear(encoder.dim, width)
    head = head.to(device)
    groups = [{"params": encoder.parameters(), "lr": lr}, {"params": head.parameters(), "lr": head_lr}]
    optimizer = torch.optim.Adam(groups, weight_decay=weight_decay)
    loader = loader_for(data, transform, device, batch_size, seed)
    best, kept = float("inf"), (encoder.state_dict(), head.state_dict())
    lines: list[dict[str, float]] = []
    for epoch in range(epochs):
        with seeded(int(torch.randint(2**62, (), generator=generator_for(seed, epoch))), device):
            order = train[np.random.default_rng([seed, epoch]).permutation(len(train))]
            line: dict[str, float] = {"epoch": epoch + 1, "step": epoch + 1}
            line["loss"] = one_pass(encoder, head, loader, order, data.y, loss_of, optimizer)
        if not np.isfinite(line["loss"]):
            raise Diverged(f"finetuning: the loss is not finite in epoch {epoch + 1} of {epochs}; try a smaller lr")
        if len(val):
            with torch.no_grad():
                line["validation loss"] = one_pass(encoder, head, loader, val, data.y, loss_of)
        lines.append(line)
        if line.get("validation loss", -1.0) <= best:
            best = line.get("validation loss", best)
            kept = copy.deepcopy((encoder.state_dict(), head.state_dict()))
    encoder.load_state_dict(kept[0])
    head.load_state_dict(kept[1])
    kept_by = "lowest validation loss" if len(val) else "last epoch"
    chosen: dict[str, object] = {
        "split": name, "kept": kept_by, "epochs": epochs, "lr": lr, "head_lr": head_lr, "weight_decay": weight_decay,
        "batch_size": batch_size, "seed": seed,
    }  # fmt: skip
    return encoder.eval(), head.eval(), lines, chosen


def known(y: Tensor) -> Tensor:
    """Which of the labels ``y`` [n] or [n, T] are there: not negative, or not all NaN."""
    there = y.isfinite() if y.is_floating_point() else y >= 0
    return there.any(1) if y.ndim == 2 else there


def loss_for(y: Tensor) -> tuple[Loss, int]:
    """The loss for labels like ``y`` and the width of the head."""
    if not y.is_floating_point():
        return lambda out, target: F.cross_entropy(out, target.flatten().long()), int(y.max()) + 1
    there = y[y.isfinite()]
    each = F.binary_cross_entropy_with_logits if bool(((there == 0) | (there == 1)).all()) else F.mse_loss

    def loss(out: Tensor, target: Tensor) -> Tensor:
        target = target.view(len(out), -1).float()
        seen = target.isfinite()
        return each(out[seen], target[seen])

    return loss, 1 if y.ndim == 1 else y.size(1)


def one_pass(
    encoder: Encoder, head: nn.Module, loader: Full | Batches, rows: Tensor, y: Tensor, loss_of: Loss,
    optimizer: Optimizer | None = None,
) -> float:  # fmt: skip
    """The mean loss over the items at ``rows``, with optimizer steps where there is an optimizer."""
    encoder.train(optimizer is not None)
    total = 0.0
    for graph, part in batches_of(loader, rows):
        codes = encoder(graph)[part.to(encoder.device)] if isinstance(loader, Full) else encoder.of_graphs(graph)
        loss = loss_of(head(codes), y[part].to(codes.device))
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        total += loss.item() * len(part)
    return total / len(rows)


def batches_of(loader: Full | Batches, rows: Tensor) -> Iterator[tuple[Graph, Tensor]]:
    """Graphs and which of ``rows`` they stand for: the one graph with all of them, or batches of graphs."""
    if isinstance(loader, Full):
        yield loader.graph, rows
        return
    for part in rows.split(loader.batch_size):
        yield loader.of(part.tolist()), part
