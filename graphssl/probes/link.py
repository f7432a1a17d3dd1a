"""Protocols for codes of nodes that should tell which pairs are joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from graphssl.data.dataset import Dataset, Split
from graphssl.errors import UserError
from graphssl.probes.base import Exam, Examiner, Exams, Fitted, Protocol, Seen, default_splits, register
from graphssl.probes.metrics import auc, average_precision

EDGE_EXPOSURE = "edge exposure unverified: the codes were handed in, and may have been trained on the held-out pairs"
CHUNK = 65536  # pairs whose codes are held at once


class Pairs(NamedTuple):
    """Pairs of rows of ``codes`` [N, D]: ``ends`` [2, M]."""

    codes: Tensor
    ends: Tensor


def set_pair_exams(codes: Tensor, dataset: Dataset) -> Exams[Pairs]:
    """One exam for each repeat of a link set's split: pairs held out against absent ones."""
    splits = default_splits(dataset, needs_validation=False)
    for number, split in enumerate(splits):
        parts = {"test": (split.test, split.test_absent), "validation": (split.val, split.val_absent)}
        for part, (present, absent) in parts.items():
            if present.numel() and (absent is None or absent.numel() == 0):
                raise UserError(
                    f"split {number} of {dataset.name!r} has no absent {part} pairs; "
                    "make a link set with dataset.link(seed)"
                )
    exposed, held_out = _exposed(dataset, splits), sum(split.test.size(1) for split in splits)
    notes = (f"{exposed} of {held_out} test pairs are edges of the graph that encoders see",) if exposed else ()
    exams: Iterator[Exam[Pairs]] = (_pair_exam(codes, split) for split in splits)
    return Exams(exams, len(splits), "split", {"AUC": auc, "AP": average_precision}, notes)


def _exposed(dataset: Dataset, splits: tuple[Split, ...]) -> int:
    """How many test pairs are edges of the graph, in either direction."""

    def keys(pairs: Tensor) -> Tensor:
        return pairs.amin(0) * dataset.graph.num_nodes + pairs.amax(0)

    edges = keys(dataset.graph.edge_index)
    return sum(int(torch.isin(keys(split.test), edges).sum()) for split in splits)


def _pair_exam(codes: Tensor, split: Split) -> Exam[Pairs]:
    def mixed(present: Tensor, absent: Tensor | None) -> tuple[Pairs, Callable[[], Tensor]]:
        """Joined pairs before absent ones, and how to tell: 1 and 0."""
        index = present if absent is None else torch.cat([present, absent], 1)
        return Pairs(codes, index), lambda: (torch.arange(index.size(1)) < present.size(1)).long()

    val, val_y = mixed(split.val, split.val_absent)
    test, answers = mixed(split.test, split.test_absent)
    ones = torch.ones(split.train.size(1), dtype=torch.long)
    return Exam(Seen(Pairs(codes, split.train), ones, val, val_y(), auc), test, answers)


def fit_dot(seen: Seen[Pairs], seeds: tuple[int, ...]) -> Fitted[Pairs]:
    """The dot product of a pair's codes; nothing is fitted and nothing is random."""

    def predict(pairs: Pairs) -> dict[str, Tensor]:
        parts = pairs.ends.split(CHUNK, dim=1)
        return {"": torch.cat([(pairs.codes[a] * pairs.codes[b]).sum(1) for a, b in parts])[None]}

    return Fitted(predict)


link_dot = register(
    Protocol(
        name="link-dot",
        version=1,
        task="link",
        metric="AUC",
        higher_is_better=True,
        about="The link set's own held-out pairs against as many absent ones; no labels; a pair's score is the dot "
        "product of its two codes as they are, without a trained decoder, so nothing is chosen; area under the ROC "
        "curve, average precision beside it; one figure for each repeat of the split.",
        judge=Examiner(set_pair_exams, fit_dot),
        labels=None,
    )
)
