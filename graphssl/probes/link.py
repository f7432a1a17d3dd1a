"""Protocols for codes of nodes that should tell which pairs are joined: by dot products, and by decoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from graphssl.data.dataset import Dataset, Split
from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.heads import dot
from graphssl.ops import sample_negatives
from graphssl.probes.base import (
    Decoder,
    Exam,
    Examiner,
    Exams,
    Fitted,
    LinkCodes,
    Protocol,
    Seen,
    default_splits,
    register,
)
from graphssl.probes.metrics import Metric, auc, average_precision, hits, mean_reciprocal_rank

EDGE_EXPOSURE = "edge exposure unverified: the codes were handed in, and may have been trained on the held-out pairs"
OWN_DECODER = "scored by the method's own decoder"
TRAINED_DECODER = "scored by a decoder that the protocol trained on the training pairs"
METRICS: dict[str, Metric] = {
    "AUC": auc,
    "AP": average_precision,
    "MRR": mean_reciprocal_rank,
    **{f"Hits@{k}": partial(hits, at=k) for k in (20, 50, 100)},
}
CHUNK = 65536  # pairs whose codes are held at once
BATCH = 1024  # the same while a decoder trains: what stays in the cache is fastest

HIDDEN = 64
RATE = 0.01
EPOCHS = 100
PATIENCE = 20
INITIALISATIONS = 3


class Pairs(NamedTuple):
    """Pairs of rows of ``codes`` [N, D]: ``ends`` [2, M]."""

    codes: Tensor
    ends: Tensor
    graph: Graph  # of training edges: a decoder learns to tell them from pairs that are none there
    score: Decoder | None = None  # the method's own decoder, where it has one


def set_pair_exams(codes: Tensor | LinkCodes, dataset: Dataset) -> Exams[Pairs]:
    """One exam for each repeat of a link set's split: pairs held out against absent ones."""
    given = codes if isinstance(codes, LinkCodes) else LinkCodes(codes)
    return _pair_exams(given, given.codes, dataset, dataset.graph, default_splits(dataset, needs_validation=False))


def set_decoder_exams(codes: Tensor | LinkCodes, dataset: Dataset) -> Exams[Pairs]:
    """The exams of ``set_pair_exams`` for a decoder, which needs validation pairs to be chosen on."""
    given = codes if isinstance(codes, LinkCodes) else LinkCodes(codes)
    exams = _pair_exams(given, given.codes, dataset, dataset.graph, default_splits(dataset))
    return replace(exams, notes=(*exams.notes, OWN_DECODER if given.score else TRAINED_DECODER))


def set_valmsg_exams(codes: Tensor | LinkCodes, dataset: Dataset) -> Exams[Pairs]:
    """The exams of ``set_decoder_exams``, with test pairs on codes of the graph that has the validation edges too."""
    if dataset.with_val is None:
        raise UserError(
            f"link-mlp-valmsg needs the graph of {dataset.name!r} with its validation edges, which is not known; "
            "make a link set with dataset.link(seed), or dataset.replace(with_val=graph)"
        )
    if not isinstance(codes, LinkCodes) or codes.with_val is None:
        raise UserError(
            "link-mlp-valmsg embeds two graphs, so it needs the encoder and got an array of codes; "
            "evaluate a run or an encoder, or judge by link-mlp"
        )
    exams = _pair_exams(codes, codes.with_val, dataset, dataset.with_val, default_splits(dataset))
    return replace(exams, notes=(*exams.notes, OWN_DECODER if codes.score else TRAINED_DECODER))


def _pair_exams(
    given: LinkCodes, test_codes: Tensor, dataset: Dataset, test_graph: Graph, splits: tuple[Split, ...]
) -> Exams[Pairs]:
    """Exams whose test pairs are scored on ``test_codes`` [N, D], made on ``test_graph``."""
    for number, split in enumerate(splits):
        parts = {"test": (split.test, split.test_absent), "validation": (split.val, split.val_absent)}
        for part, (present, absent) in parts.items():
            if present.numel() and (absent is None or absent.numel() == 0):
                raise UserError(
                    f"split {number} of {dataset.name!r} has no absent {part} pairs; "
                    "make a link set with dataset.link(seed)"
                )
    exposed, held_out = _exposed(test_graph, splits), sum(split.test.size(1) for split in splits)
    notes = (f"{exposed} of {held_out} test pairs are edges of the graph that encoders see",) if exposed else ()
    exams: Iterator[Exam[Pairs]] = (_pair_exam(given, test_codes, dataset.graph, split) for split in splits)
    return Exams(exams, len(splits), "split", METRICS, notes)


def _exposed(graph: Graph, splits: tuple[Split, ...]) -> int:
    """How many test pairs are edges of the graph, in either direction."""

    def keys(pairs: Tensor) -> Tensor:
        return pairs.amin(0) * graph.num_nodes + pairs.amax(0)

    edges = keys(graph.edge_index)
    return sum(int(torch.isin(keys(split.test), edges).sum()) for split in splits)


def _pair_exam(given: LinkCodes, test_codes: Tensor, graph: Graph, split: Split) -> Exam[Pairs]:
    def mixed(codes: Tensor, present: Tensor, absent: Tensor | None) -> tuple[Pairs, Callable[[], Tensor]]:
        """Joined pairs before absent ones, and how to tell: 1 and 0."""
        index = present if absent is None else torch.cat([present, absent], 1)
        truth = lambda: (torch.arange(index.size(1)) < present.size(1)).long()  # noqa: E731
        return Pairs(codes, index, graph, given.score), truth

    val, val_y = mixed(given.codes, split.val, split.val_absent)
    test, answers = mixed(test_codes, split.test, split.test_absent)
    ones = torch.ones(split.train.size(1), dtype=torch.long)
    train = Pairs(given.codes, split.train, graph, given.score)
    return Exam(Seen(train, ones, val, val_y(), auc), test, answers)


def fit_dot(seen: Seen[Pairs], seeds: tuple[int, ...]) -> Fitted[Pairs]:
    """The dot product of a pair's codes; nothing is fitted and nothing is random."""

    def predict(pairs: Pairs) -> dict[str, Tensor]:
        parts = pairs.ends.split(CHUNK, dim=1)
        return {"": torch.cat([dot(pairs.codes, part) for part in parts])[None]}

    return Fitted(predict)


def fit_decoder(seen: Seen[Pairs], seeds: tuple[int, ...]) -> Fitted[Pairs]:
    """The method's own decoder where it has one and, for each seed, an MLP on the product of a pair's codes.

    All initialisations of the MLP train at once, as one wide layer, against the same absent pairs; each is what
    ``torch.optim.Adam`` makes of it alone. Those pairs are free in the graph that encoders see, so held-out ones may be
    among them: that they are joined is what a decoder must not know.
    """
    train, graph = seen.train, seen.train.graph
    wide = train.codes.double()
    mean, std = wide.mean(0), wide.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, 1.0)  # a constant column becomes zero

    def standard(codes: Tensor) -> Tensor:
        """Codes by mean and spread of those that the decoder trains on."""
        return ((codes.double() - mean) / std).float()

    codes, count, D = standard(train.codes), train.ends.size(1), wide.size(1)
    generators = [Generator().manual_seed(seed) for seed in seeds]
    starts = [(_layer(D, HIDDEN, generator), _layer(HIDDEN, 1, generator)) for generator in generators]
    mlp = [torch.cat([start[i][j] for start in starts]).requires_grad_() for i in (0, 1) for j in (0, 1)]
    optimizer = torch.optim.Adam(mlp, lr=RATE)
    best, kept, since = torch.full((len(seeds),), -1.0, dtype=torch.double), [t.detach().clone() for t in mlp], 0
    truth = (torch.arange(2 * count) < count).float().expand(len(seeds), -1)
    for _ in range(EPOCHS):
        absent = sample_negatives(graph, count, generators[0])
        optimizer.zero_grad()
        for ends, y in zip(torch.cat([train.ends, absent], 1).split(BATCH, 1), truth.split(BATCH, 1), strict=True):
            # The mean over pairs and the sum over members: no member's gradient depends on another.
            loss = F.binary_cross_entropy_with_logits(_mlp(codes, ends, mlp), y, reduction="sum") / (2 * count)
            loss.backward()
        optimizer.step()
        with torch.no_grad():
            score = seen.metric(_mlp(codes, seen.val.ends, mlp), seen.val_y)  # [I]
            better = score > best
            best, since = torch.where(better, score, best), 0 if better.any() else since + 1
            for old, new in zip(kept, mlp, strict=True):
                rows = better.repeat_interleave(len(new) // len(seeds))
                old[rows] = new[rows]
        if since == PATIENCE:
            break

    @torch.no_grad()
    def predict(pairs: Pairs) -> dict[str, Tensor]:
        rows, parts = standard(pairs.codes), pairs.ends.split(CHUNK, dim=1)
        trained = torch.cat([_mlp(rows, ends, kept) for ends in parts], 1)
        if pairs.score is None:
            return {"": trained}
        own = torch.cat([_own(pairs.score, pairs.codes, ends) for ends in parts])[None]
        return {"": own, "trained decoder": trained}

    return Fitted(predict)


def _layer(dim_in: int, dim: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Weight [dim, dim_in] and bias [dim], drawn as those of a ``torch.nn.Linear``."""
    bound = dim_in**-0.5
    weight = torch.empty(dim, dim_in).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(dim).uniform_(-bound, bound, generator=generator)


def _mlp(codes: Tensor, ends: Tensor, mlp: list[Tensor]) -> Tensor:
    """Scores [I, M] of pairs ``ends`` [2, M] by I decoders that lie one after another in the rows of ``mlp``."""
    weight, bias, last, offset = mlp  # [I * HIDDEN, D], [I * HIDDEN], [I, HIDDEN], [I]
    product = codes.index_select(0, ends[0]).mul_(codes.index_select(0, ends[1]))
    hidden = F.linear(product, weight, bias).relu().view(-1, *last.shape)
    return ((hidden * last).sum(2) + offset).t()


def _own(score: Decoder, codes: Tensor, ends: Tensor) -> Tensor:
    """What the method's decoder says about the pairs, [M]; raises UserError for another shape or NaN."""
    scores = score(codes, ends).detach().float().cpu()
    if scores.shape != ends.shape[1:] or scores.isnan().any():
        what = "NaN" if scores.shape == ends.shape[1:] else f"shape {tuple(scores.shape)}"
        raise UserError(
            f"the method's score gave {what} for {ends.size(1)} pairs; let it return one number a pair, "
            f"[{ends.size(1)}], or None where it has no decoder"
        )
    return scores


_SPLIT = "The link set's own held-out pairs against as many absent ones; no labels;"
_BESIDE = "area under the ROC curve, with average precision, mean reciprocal rank and Hits@20, 50 and 100 beside it;"
_DECODER = (
    "a pair's score is that of the method's own decoder where the run has one, and of an MLP, which else gives the "
    f"score, on the product of its two standardised codes: {HIDDEN} hidden units, Adam at {RATE:g}, training pairs "
    f"against as many absent ones drawn anew in each of up to {EPOCHS} full-batch epochs, the best one on validation "
    f"kept, the end {PATIENCE} epochs after it;"
)
_REPEATS = f"{INITIALISATIONS} initialisations of the MLP on a single split, one on each of several."


link_dot = register(
    Protocol(
        name="link-dot",
        version=1,
        task="link",
        metric="AUC",
        higher_is_better=True,
        about=f"{_SPLIT} a pair's score is the dot product of its two codes as they are, without a trained decoder, "
        f"so nothing is chosen; {_BESIDE} one figure for each repeat of the split.",
        judge=Examiner(set_pair_exams, fit_dot),
        labels=None,
    )
)

link_mlp = register(
    Protocol(
        name="link-mlp",
        version=1,
        task="link",
        metric="AUC",
        higher_is_better=True,
        about=f"{_SPLIT} {_DECODER} {_BESIDE} {_REPEATS}",
        judge=Examiner(set_decoder_exams, fit_decoder, INITIALISATIONS),
        labels=None,
    )
)

link_mlp_valmsg = register(
    Protocol(
        name="link-mlp-valmsg",
        version=1,
        task="link",
        metric="AUC",
        higher_is_better=True,
        about="As link-mlp, but test pairs are scored on codes of the same encoder with validation edges as messages, "
        "as MaskGAE's published figures are, so its figures are not comparable with those of link-mlp; training and "
        f"selection are on codes of the training graph; {_BESIDE} {_REPEATS}",
        judge=Examiner(set_valmsg_exams, fit_decoder, INITIALISATIONS),
        labels=None,
        two_graphs=True,
    )
)
