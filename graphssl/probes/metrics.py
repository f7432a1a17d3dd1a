"""How predictions are scored: ``(prediction, truth) -> [I]``, a figure for each of I fitted probes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    f1_score,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix
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


def ranking_precision(scores: Tensor, relevant: Tensor) -> Tensor:
    """Average precision of each row's ranking: ``scores`` [S, M], booleans ``relevant`` [..., S, M] -> [..., S].

    Row by row the figure of ``average_precision``, so that equal scores share a place; 0 where nothing is relevant.
    """
    scores, order = scores.sort(1, descending=True)
    right = relevant.gather(-1, order.expand_as(relevant))
    last = torch.ones_like(order, dtype=torch.bool)
    last[:, :-1] = scores[:, :-1] != scores[:, 1:]
    # Of equal scores all count at the last one's place: the next place that ends a run of them.
    place = torch.arange(scores.size(1)).expand_as(order)
    end = place.masked_fill(~last, scores.size(1)).flip(1).cummin(1).values.flip(1)
    precision = right.cumsum(-1).gather(-1, end.expand_as(right)).double() / (end + 1)
    return 100 * (precision * right).sum(-1) / right.sum(-1).clamp(min=1)


def mutual_information(clusters: Tensor, truth: Tensor) -> Tensor:
    """Mutual information over the mean of the two entropies (NMI): ``clusters`` [I, M], ``truth`` [M] -> [I]."""
    return _each(clusters, lambda row: normalized_mutual_info_score(truth.numpy(), row, average_method="arithmetic"))


def adjusted_rand(clusters: Tensor, truth: Tensor) -> Tensor:
    """Share of the pairs of rows on which clusters and classes agree, 0 by chance (ARI): [I, M], [M] -> [I]."""
    return _each(clusters, lambda row: adjusted_rand_score(truth.numpy(), row))


def matched_accuracy(clusters: Tensor, truth: Tensor) -> Tensor:
    """Accuracy when each cluster stands for the class that makes it highest (ACC): [I, M], [M] -> [I]."""
    return _each(clusters, lambda row: float((_matched(row, truth.numpy()) == truth.numpy()).mean()))


def matched_f1(clusters: Tensor, truth: Tensor) -> Tensor:
    """Mean of the classes' F1 when clusters stand for classes as in ``matched_accuracy``: [I, M], [M] -> [I]."""

    def f1(row: np.ndarray) -> float:
        return f1_score(
            truth.numpy(), _matched(row, truth.numpy()), labels=np.unique(truth), average="macro", zero_division=0.0
        )

    return _each(clusters, f1)


def _each(clusters: Tensor, figure: Callable[[np.ndarray], float]) -> Tensor:
    return torch.tensor([100 * figure(row) for row in clusters.numpy()], dtype=torch.double)


def _matched(clusters: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The class that each row's cluster stands for, each class once at most; -1 for a cluster that stands for none."""
    classes, groups = np.unique(truth), np.unique(clusters)
    row, column = linear_sum_assignment(contingency_matrix(truth, clusters), maximize=True)
    stands_for = np.full(len(groups), -1, dtype=np.int64)
    stands_for[column] = classes[row]
    return stands_for[np.searchsorted(groups, clusters)]


def mean_absolute_error(values: Tensor, truth: Tensor) -> Tensor:
    """``values`` [I, M], ``truth`` [M] -> [I]."""
    return (values.double() - truth.double()).abs().mean(-1)


def root_mean_square_error(values: Tensor, truth: Tensor) -> Tensor:
    """``values`` [I, M], ``truth`` [M] -> [I]."""
    return (values.double() - truth.double()).square().mean(-1).sqrt()
