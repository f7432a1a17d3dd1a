"""Protocols for codes of nodes that need no labels: which part of the graph a node is in, and who is near it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl import structure
from graphssl.data.dataset import Dataset
from graphssl.data.splits import random_splits
from graphssl.errors import UserError
from graphssl.probes.base import Examiner, Exams, Outcome, Protocol, one_thread, register, row_exam
from graphssl.probes.metrics import accuracy, ranking_precision
from graphssl.probes.node import EPOCHS, INITIALISATIONS, RATE, WEIGHT_DECAYS, fit_linear

PARTS = 10
SEED = 12345  # of parts, split and sample: no pretext task's, and the same for all codes
TRAIN = VAL = 0.1

SAMPLE = 500
HOPS = 3
CHUNK = 2**20  # similarities held at once


def set_part_exams(codes: Tensor, dataset: Dataset) -> Exams[Tensor]:
    """One exam: parts of the graph as classes, a random split of the nodes."""
    part = structure.partition(dataset.graph, PARTS, SEED).cpu()
    (split,) = random_splits(len(part), repeats=1, seed=SEED, train=TRAIN, val=VAL)
    exam = row_exam(codes, part, split.train, split.val, split.test, accuracy)
    return Exams(iter([exam]), 1, "split", {"accuracy": accuracy})


def judge_reconstruction(codes: Tensor, dataset: Dataset, seed: int) -> Outcome:
    """How early the neighbours of sampled nodes come when all others are ranked by how like their codes are."""
    graph = dataset.graph
    joined = structure.degree(graph).cpu().nonzero().squeeze(1)
    if not len(joined):
        raise UserError(f"no two nodes of {dataset.name!r} are joined, so there is no neighbourhood to rebuild")
    chosen = np.random.default_rng(SEED).permutation(len(joined))[:SAMPLE]
    sources = joined[torch.from_numpy(chosen)]
    with one_thread():
        figures = neighbourhood_precision(codes, sources, structure.hops(graph, sources, HOPS).cpu())
    return Outcome(score=next(iter(figures.values())), metrics=figures)


def neighbourhood_precision(codes: Tensor, sources: Tensor, distance: Tensor) -> dict[str, float]:
    """Mean average precision, by name, of the nodes within 1, 2 and 3 hops when codes rank all of a source's others.

    ``codes`` [N, D] rank by their cosine and by their dot product; ``sources`` [S] have ``distance`` [S, N] in hops.
    The question of RESTORE (Yip et al., 2023).
    """
    unit, sums = F.normalize(codes.double()), torch.zeros(2, HOPS, dtype=torch.double)
    for rows in torch.arange(len(sources)).split(max(1, CHUNK // len(codes))):
        others = torch.ones(len(rows), len(codes), dtype=torch.bool)
        others[torch.arange(len(rows)), sources[rows]] = False
        hops = distance[rows][others].view(len(rows), -1)
        near = torch.stack([hops <= k for k in range(1, HOPS + 1)])
        for total, among in zip(sums, (unit, codes.double()), strict=True):
            scores = (among[sources[rows]] @ among.t())[others].view_as(hops)
            total += ranking_precision(scores, near).sum(1)
    means = (sums / len(sources)).tolist()
    names = [f"mAP, {k} hop{'s' if k > 1 else ''}" for k in range(1, HOPS + 1)]
    names += [f"{name}, dot product" for name in names]
    return dict(zip(names, [value for row in means for value in row], strict=True))


partition = register(
    Protocol(
        name="partition",
        version=1,
        task="node",
        metric="accuracy",
        higher_is_better=True,
        about=f"The {PARTS} parts into which METIS cuts the graph, with seed {SEED}, as classes; a random tenth of the "
        "nodes trains, a tenth chooses and the rest tests, drawn from that seed; no labels; one linear layer on the "
        f"codes as they are, Adam at {RATE:g}, {EPOCHS} full-batch epochs, weight decay of "
        f"{', '.join(f'{w:g}' for w in WEIGHT_DECAYS)} chosen on validation after the last epoch; accuracy after the "
        f"last epoch, the one after the best validation epoch beside it; {INITIALISATIONS} initialisations of the "
        "layer.",
        judge=Examiner(set_part_exams, fit_linear, INITIALISATIONS),
        labels=None,
    )
)

reconstruct = register(
    Protocol(
        name="reconstruct",
        version=1,
        task="node",
        metric="mAP",
        higher_is_better=True,
        about=f"Up to {SAMPLE} nodes with a neighbour, drawn with seed {SEED}; no labels, and nothing is fitted or "
        "chosen; all other nodes are ranked by the cosine similarity of their codes, by the dot product beside it; "
        "mean average precision of those within 1 hop coming first, within "
        f"{' and '.join(map(str, range(2, HOPS + 1)))} hops beside it; nothing is random.",
        judge=judge_reconstruction,
        labels=None,
    )
)
