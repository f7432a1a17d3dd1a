"""Several pretext tasks on one encoder: ParetoGNN, ICLR 2023, arXiv:2210.02016, and other ways to weigh them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Generator, Tensor, nn

from graphssl import processes
from graphssl.balance import Balance, Equal, Uncertainty
from graphssl.graph import Graph
from graphssl.methods.base import Method


class MultiTask(Method):
    """``tasks`` by name, all around the same encoder, weighed anew in each step by ``balance``; each loss is its total.

    A step is one forward a task and one backward of the weighed sum; a balance that asks for the Gram matrix of the
    gradients in the encoder costs one backward a task more. The log has each task's loss as it is, and its weight.
    """

    def __init__(self, tasks: Mapping[str, Method], balance: Balance | None = None):
        super().__init__()
        if not tasks:
            raise ValueError("there are no tasks; give one at least, {name: method}")
        self.encoder = next(iter(tasks.values())).encoder
        if isinstance(balance, Uncertainty) and len(balance.log_variance) != len(tasks):
            raise ValueError(f"{len(tasks)} tasks came with Uncertainty({len(balance.log_variance)}); make them agree")
        for name, task in tasks.items():
            if not name or "." in name:
                raise ValueError(f"a task is called {name!r}; choose a name without dots")
            if task.encoder is not self.encoder:
                raise ValueError(f"task {name!r} has an encoder of its own; build all tasks around one Encoder object")
        self.tasks, self.balance = nn.ModuleDict(tasks), balance if balance is not None and len(tasks) > 1 else Equal()
        self.pretexts = tuple(dict.fromkeys(p for task in tasks.values() for p in task.pretexts))
        self.why_whole = next((task.why_whole for task in tasks.values() if task.why_whole), "")
        self.tells_edges = any(task.tells_edges for task in tasks.values())
        self.contrasts = any(task.contrasts for task in tasks.values())
        self.sees_labels = any(task.sees_labels for task in tasks.values())
        self.weights: dict[str, Tensor] = {}

    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        return {name: task.total(task(graph, generator)) for name, task in self._named()}

    def _named(self) -> Iterator[tuple[str, Method]]:
        for name, task in self.tasks.items():
            yield name, cast(Method, task)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        total, weights = self.balance(list(losses.values()), self._gram(losses) if self.balance.needs_gram else None)
        self.weights = dict(zip(losses, weights.detach(), strict=True))
        return total

    def _gram(self, losses: dict[str, Tensor]) -> Tensor:
        """Inner products [T, T] of the gradients of ``losses`` in the encoder, a mean over processes."""
        shared = [p for p in self.encoder.parameters() if p.requires_grad]
        if not shared:
            return torch.eye(len(losses), device=next(iter(losses.values())).device)  # nothing to disagree on
        rows = []
        for loss in losses.values():  # each by itself: the gradient of one row of their stack walks through all tasks
            found = torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True, allow_unused=True)
            rows.append(torch.cat([gradient.flatten() for gradient in found]).float())
        gradients = processes.mean(torch.stack(rows))
        return gradients @ gradients.t()

    @property
    def settled(self) -> bool:
        return all(task.settled for _, task in self._named())

    def logged(self) -> dict[str, Tensor]:
        return {f"{name} weight": weight for name, weight in self.weights.items()} | {
            f"{name}: {key}": value for name, task in self._named() for key, value in task.logged().items()
        }

    def after_step(self, progress: float) -> None:
        for _, task in self._named():
            task.after_step(progress)

    def step_bytes(self, nodes: int, edges: int) -> int:
        """All tasks' activations: none is freed before the combined backward."""
        return sum(task.step_bytes(nodes, edges) for _, task in self._named())
