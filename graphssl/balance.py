"""Several losses of one encoder -> one to differentiate.

A Balance maps the losses of T tasks, and where it asks for it the Gram matrix [T, T] of the gradients that they
send into the shared encoder, to (total, weights [T]).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from graphssl import processes

TINY = 1e-30  # squared length of a gradient below which a task has nothing to say


class Balance(nn.Module, ABC):
    """How much each task counts; one with parameters is trained along with the encoder."""

    needs_gram = False

    @abstractmethod
    def forward(self, losses: Sequence[Tensor], gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The total to differentiate and the weights [T] of T scalars; ``gram`` [T, T] where ``needs_gram``."""


class Equal(Balance):
    """The sum: each task weighs one."""

    def forward(self, losses: Sequence[Tensor], gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.stack(list(losses)).sum(), torch.ones(len(losses), device=losses[0].device)


class Uncertainty(Balance):
    """sum_t exp(-s_t) L_t + s_t with a learned s_t for each of ``tasks``, starting at 0.

    Kendall et al. 2018, arXiv:1705.07115, eq. 10 with s = log sigma^2, without its factor of one half.
    """

    def __init__(self, tasks: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Sequence[Tensor], gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weights = (-self.log_variance).exp()
        return (weights * torch.stack(list(losses)) + self.log_variance).sum(), weights


class FromGram(Balance):
    """Weights that are a function of the Gram matrix alone; a task without gradient weighs nothing.

    Weights sum to one (MGDA), about one (CAGrad) or to the number of tasks and more (PCGrad): the same to Adam, not to
    a clipped gradient.
    """

    needs_gram = True

    def forward(self, losses: Sequence[Tensor], gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert gram is not None
        found = gram.detach().double().cpu().numpy()
        told = np.flatnonzero(np.isfinite(np.diag(found)) & (np.diag(found) > TINY))
        weights = np.zeros(len(found))
        if len(told):
            weights[told] = self.solve(found[np.ix_(told, told)])
        shared = torch.from_numpy(weights)
        processes.copy_first([shared])  # each process draws an order of its own
        weights = shared.numpy()
        counted = [weight * loss for weight, loss in zip(weights.tolist(), losses, strict=True) if weight]
        total = torch.stack(counted or [0 * loss for loss in losses]).sum()  # 0 times what is not finite is not 0
        return total, torch.as_tensor(weights, dtype=total.dtype, device=total.device)

    @abstractmethod
    def solve(self, gram: np.ndarray) -> np.ndarray:
        """Weights [T] for a Gram matrix [T, T] in float64 without zeros on its diagonal."""


class MGDA(FromGram):
    """The weights, of sum one, whose mixture of gradients is shortest.

    Sener and Koltun 2018, arXiv:1810.04650: a small step against that mixture raises no task's loss. With
    ``normalize`` each gradient is scaled to length one first, and the weights are then those of the losses as they are,
    as in ParetoGNN's code ("l2", jumxglhf/ParetoGNN at e6092b0): no task with long gradients drowns the others, but a
    step can raise one.
    """

    def __init__(self, normalize: bool = True):
        super().__init__()
        self.normalize = normalize

    def solve(self, gram: np.ndarray) -> np.ndarray:
        if self.normalize:
            length = np.sqrt(np.diag(gram))
            gram = gram / np.outer(length, length)
        return min_norm(gram)


class PCGrad(FromGram):
    """Each task's gradient less what points against another's, summed; Yu et al. 2020, arXiv:2001.06782, algorithm 1.

    The order in which a gradient meets the others is drawn from the default generator.
    """

    def solve(self, gram: np.ndarray) -> np.ndarray:
        tasks = len(gram)
        parts = np.eye(tasks)  # row i: the gradient of task i in terms of all
        for i in range(tasks):
            for j in torch.randperm(tasks).tolist():
                against = parts[i] @ gram[:, j]
                if i != j and against < 0:
                    parts[i, j] -= against / gram[j, j]
        return parts.sum(0)


class CAGrad(FromGram):
    """The direction within ``c`` of the mean gradient that helps the worst task most; its length is not scaled back.

    Liu et al. 2021, arXiv:2110.14048, eq. 4 and algorithm 1; 0 <= c < 1.
    """

    def __init__(self, c: float = 0.4):
        super().__init__()
        if not 0 <= c < 1:
            raise ValueError(f"c of CAGrad is {c}; choose one from 0 up to, not including, 1")
        self.c = c

    def solve(self, gram: np.ndarray) -> np.ndarray:
        tasks = len(gram)
        scale = np.diag(gram).mean()
        gram, mean = gram / scale, np.full(tasks, 1 / tasks)
        radius = self.c * np.sqrt(max(mean @ gram @ mean, 0.0))

        def worst(w: np.ndarray) -> float:
            return w @ gram @ mean + radius * np.sqrt(max(w @ gram @ w, 0.0) + 1e-12)

        simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
        solved = minimize(worst, mean, bounds=[(0, 1)] * tasks, constraints=simplex, method="SLSQP")
        w = solved.x.clip(0) if solved.success else mean  # the mean itself lies in the ball
        length = np.sqrt(max(w @ gram @ w, 0.0))
        return mean if length < 1e-9 else mean + radius / length * w


BALANCES: dict[str, Callable[[int], Balance]] = {  # by name, from the number of tasks
    "equal": lambda tasks: Equal(),
    "uncertainty": Uncertainty,
    "mgda": lambda tasks: MGDA(),
    "mgda-raw": lambda tasks: MGDA(normalize=False),
    "pcgrad": lambda tasks: PCGrad(),
    "cagrad": lambda tasks: CAGrad(),
}


def min_norm(gram: np.ndarray, steps: int = 1000, tolerance: float = 1e-10) -> np.ndarray:
    """The weights [T] >= 0 of sum one that make w^T ``gram`` w least, of a Gram matrix [T, T].

    In closed form for two; else Frank-Wolfe in its pairwise form, which moves weight from the worst task that has any
    to the best and converges linearly (Lacoste-Julien and Jaggi 2015, arXiv:1511.05932), until the duality gap is below
    ``tolerance`` of the longest gradient's square.
    """
    if len(gram) == 2:
        (aa, ab), (_, bb) = gram
        apart = aa + bb - 2 * ab
        first = np.clip((bb - ab) / apart, 0.0, 1.0) if apart > 0 else 0.5
        return np.array([first, 1 - first])
    weights = np.zeros(len(gram))
    weights[np.diag(gram).argmin()] = 1.0
    for _ in range(steps):
        slope = gram @ weights
        best, worst = slope.argmin(), np.where(weights > 0, slope, -np.inf).argmax()
        if weights @ slope - slope[best] <= tolerance * np.diag(gram).max():
            break
        apart = gram[best, best] + gram[worst, worst] - 2 * gram[best, worst]
        wanted = (slope[worst] - slope[best]) / apart if apart > 0 else np.inf
        step = min(wanted, weights[worst])
        weights[best] += step
        weights[worst] = 0.0 if step == weights[worst] else weights[worst] - step
    return weights / weights.sum()
