"""Encoder and a linear head trained together on labels, from a pretrained start."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphssl.data import Dataset
from graphssl.data.loader import Batches, Full
from graphssl.encoder import Encoder
from graphssl.errors import Diverged, UserError, unknown
from graphssl.graph import Graph
from graphssl.pretrained import Pretrained
from graphssl.train import generator_for, seeded


def finetune(
    run: Pretrained, data: Dataset, *, split: str | None = None, epochs: int = 100, lr: float = 1e-3,
    head_lr: float = 1e-2, weight_decay: float = 1e-4, batch_size: int = 32, seed: int = 0,
) -> Pretrained:  # fmt: skip
    """A copy of ``run`` whose encoder and new linear head were trained on the training part of ``split``.

    Integer labels are classes (cross-entropy); float labels are yes or no where all are 0, 1 or missing (binary
    cross-entropy) and numbers otherwise (squared error). The epoch with the lowest validation loss is kept; test labels
    are never read. ``split`` None is the data set's first. Raises UserError where labels or splits are missing.
    """
    if data.y is None or data.task == "link":
        raise UserError(f"data set {data.name!r} has no labels to finetune on; give one that has")
    if not data.splits:
        raise UserError(f"data set {data.name!r} has no split to finetune on; give one with splits")
    name = split or next(iter(data.splits))
    if name not in data.splits:
        raise unknown(f"split of {data.name}", name, data.splits)
    parts, device = data.splits[name][0], run.device
    y = data.y if data.y.ndim == 1 or not data.y.is_floating_point() else data.y.float()
    loss_of, width = _loss(y)
    encoder = copy.deepcopy(run.encoder)
    with seeded(seed):
        head = nn.Linear(encoder.dim, width).to(device)
    groups = [{"params": encoder.parameters(), "lr": lr}, {"params": head.parameters(), "lr": head_lr}]
    optimizer = torch.optim.Adam(groups, weight_decay=weight_decay)
    best, kept, lines = float("inf"), copy.deepcopy((encoder.state_dict(), head.state_dict())), []
    loader: Full | Batches
    if data.task == "graph":
        loader = Batches(data, run.plan.transform, device, batch_size, seed)
    else:
        loader = Full(data, run.plan.transform, device)
    for epoch in range(epochs):
        with seeded(int(torch.randint(2**62, (), generator=generator_for(seed, epoch)))):
            train_loss = _pass(encoder, head, loader, parts.train, y, loss_of, optimizer, epoch, seed)
        with torch.no_grad():
            val_loss = _pass(encoder, head, loader, parts.val, y, loss_of)
        if not np.isfinite(train_loss):
            raise Diverged(f"finetuning: the loss is not finite in epoch {epoch + 1} of {epochs}; try a smaller lr")
        lines.append({"epoch": epoch + 1, "step": epoch + 1, "loss": train_loss, "validation loss": val_loss})
        if val_loss <= best:
            best, kept = val_loss, copy.deepcopy((encoder.state_dict(), head.state_dict()))
    encoder.load_state_dict(kept[0])
    head.load_state_dict(kept[1])
    method = copy.deepcopy(run.method)
    method.encoder.load_state_dict(kept[0])
    config = {
        **run.config,
        "finetuned": {"dataset": data.name, "split": name, "epochs": epochs, "lr": lr, "seed": seed},
    }
    plan = replace(run.plan, method=method.eval())
    return Pretrained(plan, run.recipe, config, dataset=data, history=lines, module=run.module, head=head.eval())


def _loss(y: Tensor):
    """The loss for labels ``y`` and the width of the head."""
    if not y.is_floating_point():
        return F.cross_entropy, int(y.max()) + 1
    width = 1 if y.ndim == 1 else y.size(1)
    known = y[y.isfinite()]
    each = F.binary_cross_entropy_with_logits if bool(((known == 0) | (known == 1)).all()) else F.mse_loss

    def loss(out: Tensor, target: Tensor) -> Tensor:
        target = target.view(len(out), -1)
        seen = target.isfinite()
        return each(out[seen], target[seen]) if seen.any() else out.sum() * 0.0

    return loss, width


def _pass(
    encoder: Encoder, head: nn.Module, loader: Full | Batches, rows: Tensor, y: Tensor, loss_of, optimizer=None,
    epoch: int = 0, seed: int = 0,
) -> float:  # fmt: skip
    """One pass over the items at ``rows``, with steps where there is an optimizer; the mean loss."""
    encoder.train(optimizer is not None)
    total = 0.0
    for graph, places, labels in _labelled(loader, rows, y, epoch if optimizer is not None else None, seed):
        codes = encoder(graph)
        out = head(codes[places] if isinstance(loader, Full) else encoder.pool(graph, codes))
        loss = loss_of(out, labels.to(out.device))
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        total += loss.item() * len(labels)
    return total / max(len(rows), 1)


def _labelled(
    loader: Full | Batches, rows: Tensor, y: Tensor, epoch: int | None, seed: int
) -> Iterator[tuple[Graph, Tensor, Tensor]]:
    """Graphs with the rows of theirs that count and their labels; shuffled where there is an epoch."""
    if isinstance(loader, Full):
        yield loader.graph, rows.to(loader.graph.device), y[rows]
        return
    order = rows if epoch is None else rows[np.random.default_rng([seed, epoch]).permutation(len(rows))]
    for part in order.split(loader.batch_size):
        yield Graph.stack([loader.graphs[i] for i in part.tolist()]).to(loader.device), part, y[part]
