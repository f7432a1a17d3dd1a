"""How predictions are scored: ``(prediction, truth) -> [I]``, a figure for each of I fitted probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from graphssl.errors import UserError

Metric = Callable[[Tensor, Tensor], Tensor]


def accuracy(scores: Tensor, truth: Tensor) -> Tensor:
    """Share of the rows whose highest score is that of their class: ``scores`` [..., M, C], ``truth`` [M] -> [...]."""
    return 100 * (scores.argmax(-1) == truth).double().mean(-1)


def class_auc(scores: Tensor, truth: Tensor) -> Tensor:
    """Area under the ROC curve of class 1 against class 0: ``scores`` [..., M, 2], ``truth`` [M] -> [...]."""
    return auc(scores[..., 1] - scores[..., 0], truth)


def auc(scores: Tensor, truth: Tensor) -> Tensor:
    """Chance that a row of class 1 scores above one of class 0, ties counting half: ``scores`` [..., M] -> [...]."""
    above, below = _parts(scores, truth, "AUC")
    below = below.sort(-1).values
    beaten = torch.searchsorted(below, above) + torch.searchsorted(below, above, right=True)
    return 50 * beaten.double().mean(-1) / below.size(-1)


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Area under the precision-recall curve, as steps: ``scores`` [I, M], ``truth`` [M] of zeros and ones -> [I]."""
    figures = [100 * float(average_precision_score(truth.numpy(), row)) for row in scores.numpy()]
    return torch.tensor(figures, dtype=torch.double)


def mean_reciprocal_rank(scores: Tensor, truth: Tensor) -> Tensor:
    """Mean of 1 / rank of each row of class 1 among all of class 0: ``scores`` [I, M], ``truth`` [M] -> [I].

    A rank is the average of the best and the worst that ties allow, as in ``Evaluator("ogbl-citation2")`` of ogb 1.3.6.
    """
    above, below = _parts(scores, truth, "MRR")
    below = below.sort(-1).values
    beaten = torch.searchsorted(below, above) + torch.searchsorted(below, above, right=True)
    return 100 * (1 + below.size(-1) - beaten.double() / 2).reciprocal().mean(-1)


def hits(scores: Tensor, truth: Tensor, at: int) -> Tensor:
    """Share of the rows of class 1 that score above the best ``at``-th of class 0: ``scores`` [I, M] -> [I].

    100 % where class 0 has fewer rows than that, as in ``Evaluator("ogbl-collab")`` of ogb 1.3.6.
    """
    above, below = _parts(scores, truth, f"Hits@{at}")
    if below.size(-1) < at:
        return torch.full(scores.shape[:-1], 100.0, dtype=torch.double)
    return 100 * (above > below.topk(at).values[..., -1:]).double().mean(-1)


def _parts(scores: Tensor, truth: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    """Scores of class 1 and of class 0."""
    above, below = scores[..., truth == 1].contiguous(), scores[..., truth == 0]
    if not above.size(-1) or not below.size(-1):
        raise UserError(
            f"{metric} is undefined for rows of a single class; give rows of both classes to every part of the split"
        )
    return above, below


def mean_absolute_error(values: Tensor, truth: Tensor) -> Tensor:
    """``values`` [I, M], ``truth`` [M] -> [I]."""
    return (values.double() - truth.double()).abs().mean(-1)


def root_mean_square_error(values: Tensor, truth: Tensor) -> Tensor:
    """``values`` [I, M], ``truth`` [M] -> [I]."""
    return (values.double() - truth.double()).square().mean(-1).sqrt()
