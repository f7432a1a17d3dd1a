"""Which weights a run ends with: those that told held-out pairs of nodes from absent ones best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphssl import processes
from graphssl.backbones import evaluating
from graphssl.data import Dataset
from graphssl.data.splits import Split, link_split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.heads import dot
from graphssl.methods import Method
from graphssl.probes.metrics import auc
from graphssl.recipes import Select
from graphssl.store import load_tensors, tensors_of

FEWEST = 100  # pairs of joined nodes of a node set that has some to set aside


def hold_out(data: Dataset, select: Select | None, seed: int) -> tuple[Dataset, Split | None]:
    """What to train on, and the validation pairs that choose the weights; None where there are too few to choose by.

    A link set brings its own; of a node set a share ``select.hold_out`` of the edges is set aside, drawn from ``seed``.
    No labels are involved, and a link set's test pairs are not looked at.
    """
    if select is None or data.task == "graph":
        return data, None
    if data.task == "link":
        split = next(iter(data.splits.values()), (None,))[0]
        return data, split if split is not None and split.val.numel() and split.val_absent is not None else None
    edges = data.graph.edge_index
    low, high = edges[:, edges[0] != edges[1]].aminmax(dim=0)
    if len(torch.unique(low * data.graph.num_nodes + high)) < FEWEST:
        return data, None  # too few edges to learn from what is left, and to choose by what is not
    try:
        graph, split = link_split(data.graph, seed, val=select.hold_out, test=0.0)[:2]
    except UserError:  # too few pairs are not joined to compare with
        return data, None
    return data.replace(graphs=[graph]), split


class Best:
    """The weights of ``method`` at the epoch whose codes scored the validation pairs of ``split`` best (AUC)."""

    def __init__(self, method: Method, graph: Graph, split: Split, select: Select, epochs: int):
        assert split.val_absent is not None
        self.method, self.graph, self.select, self.epochs = method, graph, select, epochs
        self.pairs = torch.cat([split.val, split.val_absent], 1).to(graph.device)
        self.truth = (torch.arange(self.pairs.size(1)) < split.val.size(1)).long()
        self.epoch, self.auc, self.waited = 0, -1.0, 0
        self.weights: dict[str, Tensor] = {}

    def look(self, epoch: int) -> dict[str, float]:
        """Every ``select.every`` epochs, and at the last: judges the weights, keeps the best; what the log shows."""
        if epoch % self.select.every and epoch != self.epochs:
            return {}
        found = processes.agree(self._judge)
        if found > self.auc:
            self.epoch, self.auc, self.waited = epoch, found, 0
            self.weights = {name: tensor.clone() for name, tensor in tensors_of(self.method).items()}
        else:
            self.waited += 1
        return {"validation_auc": found}

    @property
    def done(self) -> bool:
        """Whether the last ``select.patience`` looks found nothing better."""
        return self.waited >= self.select.patience

    @torch.no_grad()
    def _judge(self) -> float:
        with evaluating(self.method):
            codes = self.method.pair_codes(self.graph)
            scores = None if self.select.dot else self.method.score(codes, self.pairs)
            if scores is None:
                scores = dot(codes, self.pairs)
        return float(auc(scores.float().cpu(), self.truth)) if scores.isfinite().all() else 0.0

    def restore(self) -> None:
        """Puts the kept weights back into the method."""
        if self.weights:
            load_tensors(self.method, self.weights, "the best epoch")

    def state(self) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """What a checkpoint needs to go on."""
        return self.weights, {"epoch": self.epoch, "auc": self.auc, "waited": self.waited}

    def go_on(self, weights: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Takes up what ``state`` said."""
        if numbers:
            self.weights = dict(weights)
            self.epoch, self.auc, self.waited = numbers["epoch"], numbers["auc"], numbers["waited"]
