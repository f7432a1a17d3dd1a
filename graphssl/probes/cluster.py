"""A protocol for codes of nodes without a probe: how well their clusters are the classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits
from torch import Tensor

from graphssl.data.dataset import Dataset
from graphssl.data.features import mostly_zero
from graphssl.data.splits import labelled
from graphssl.errors import UserError
from graphssl.probes.base import Exam, Examiner, Exams, Fitted, Protocol, Seen, labels, register
from graphssl.probes.metrics import Metric, adjusted_rand, matched_accuracy, matched_f1, mutual_information
from graphssl.structure import MANY, k_means

SEEDS = 5
STARTS = 10  # of k-means for each seed, the one with the least inertia counts
METRICS: dict[str, Metric] = {
    "NMI": mutual_information,
    "ARI": adjusted_rand,
    "ACC": matched_accuracy,
    "macro-F1": matched_f1,
}


class Crowd(NamedTuple):
    """Rows of codes [n, D], and how many classes there are among them."""

    codes: Tensor
    classes: int


def set_cluster_exams(codes: Tensor, dataset: Dataset) -> Exams[Crowd]:
    """One exam: all nodes to be clustered, those with a label to be scored. Of the labels only their number is told."""
    assert dataset.y is not None  # ``judge`` has looked
    y = dataset.y.flatten()
    rows = torch.from_numpy(labelled(y))
    classes = len(y[rows].unique())
    if classes < 2:
        raise UserError(f"the nodes of {dataset.name!r} are all of one class, so there is nothing to tell apart")
    everyone, none = Crowd(codes, classes), torch.empty(0, dtype=torch.long)
    seen = Seen(everyone, none, everyone, none, mutual_information, dataset.name)
    exam = Exam(seen, Crowd(codes[rows], classes), lambda: labels(y, rows))
    without = len(y) - len(rows)
    notes = (f"{without} nodes without a label are clustered, but not scored",) if without else ()
    return Exams(iter([exam]), 1, "split", METRICS, notes, fits="k-means seeds")


def fit_kmeans(seen: Seen[Crowd], seeds: tuple[int, ...]) -> Fitted[Crowd]:
    """k-means on codes of length one for each seed, as many clusters as classes.

    As fit_node_clustering in src/evaluator.py, github.com/jumxglhf/ParetoGNN, commit 876622b: five seeds of what was
    scikit-learn's default, ten starts each, scored by the V-measure, which is the NMI.
    """
    rows = _rows(seen.train.codes)
    models = [k_means(rows, seen.train.classes, seed, STARTS) for seed in seeds]

    def predict(crowd: Crowd) -> dict[str, Tensor]:
        with threadpool_limits(1):
            return {"": torch.stack([torch.from_numpy(model.predict(_rows(crowd.codes))) for model in models])}

    return Fitted(predict)


def _rows(codes: Tensor) -> Any:
    """Codes of length one for scikit-learn, sparse where that is faster."""
    rows = F.normalize(codes)
    return csr_matrix(rows.numpy()) if mostly_zero(rows) else rows.numpy()


node_cluster = register(
    Protocol(
        name="node-cluster",
        version=1,
        task="node",
        metric="NMI",
        higher_is_better=True,
        about="All nodes in as many clusters as there are classes, without a split; labels only score them; k-means on "
        f"codes scaled to length one, the best of {STARTS} starts by inertia, in mini-batches from {MANY:,} nodes on; "
        "normalised mutual information (arithmetic mean), with the adjusted Rand index, and accuracy and macro-F1 "
        f"under the best matching of clusters to classes beside it; nothing is chosen; {SEEDS} seeds of k-means.",
        judge=Examiner(set_cluster_exams, fit_kmeans, SEEDS),
    )
)
