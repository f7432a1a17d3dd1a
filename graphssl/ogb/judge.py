"""How a seed is judged: by ogb's own Evaluator, of a probe, a fine-tuned encoder or a decoder of pairs.

Facts of the Evaluators: ogb 1.3.6, evaluate.py of each family of tasks.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl.data import Dataset
from graphssl.data.ogb_files import FAMILIES, INSTALL, Meta
from graphssl.errors import UserError
from graphssl.finetune import CLASSES, NUMBERS, YES_OR_NO, finetune, known, loader_for, outputs
from graphssl.heads import dot
from graphssl.ogb.shown import split_of
from graphssl.pretrained import Pretrained
from graphssl.probes.base import Seen
from graphssl.probes.graph import fit_ridge
from graphssl.probes.link import CHUNK, HIDDEN, Pairs, fit_decoder
from graphssl.probes.metrics import root_mean_square_error
from graphssl.probes.node import fit_linear

METRICS = {"ogbn": "acc|rocauc", "ogbg": "acc|ap|rocauc|rmse", "ogbl": r"hits@\d+|mrr|rocauc"}  # of the Evaluators
DECAYS = (0.0, 1e-4, 1e-3, 1e-2)  # of the probe for yes/no labels
RATE, EPOCHS, LOOK = 0.01, 300, 10
MOST_PAIRS = 1_000_000  # that choose a decoder where each joined pair has candidates of its own
_OF_FAMILY = {"ogbn": "ogbn-arxiv", "ogbl": "ogbl-collab", "ogbg": "ogbg-molhiv"}  # a set that each Evaluator knows
Outputs = Callable[[Tensor], Tensor]  # rows [M] -> outputs [M, C]


@dataclass(frozen=True)
class Judged:
    """What became of one seed: ``test`` reads the test labels, once all is chosen."""

    validation: float
    test: Callable[[], float]
    what: str  # was trained on labels or pairs, beside the method: "probe", "head" or "decoder"
    parameters: int  # of it
    chosen: str  # by the validation score


class Figures:
    """ogb's own Evaluator of a data set; of one that ogb does not list, that of its family with its metric."""

    def __init__(self, meta: Meta):
        self.metric = meta.metric
        if not re.fullmatch(METRICS[meta.family], self.metric) or (self.metric == "acc" and meta.num_tasks > 1):
            columns = "pairs" if meta.family == "ogbl" else f"{meta.num_tasks} columns of labels"
            raise UserError(
                f"{meta.name!r} is to be judged by {self.metric} of {columns}, which ogb's Evaluator or the probes "
                f"here do not take; they know {METRICS[meta.family].replace('|', ', ')}, and acc of a single column"
            )
        kind = _evaluators(meta)
        self.evaluator = kind(meta.name if meta.known else _OF_FAMILY[meta.family])
        self.evaluator.name, self.evaluator.eval_metric = meta.name, self.metric
        self.evaluator.num_tasks = meta.num_tasks
        if self.metric.startswith("hits@"):
            self.evaluator.K = int(self.metric.removeprefix("hits@"))

    @property
    def higher_is_better(self) -> bool:
        return self.metric != "rmse"

    def __call__(self, out: Tensor, y: Tensor) -> float:
        """The figure of outputs [M, C] or [M, T] for labels [M] (classes) or [M, T]."""
        if self.metric == "acc":
            truth = y.double().masked_fill(y < 0, float("nan")).view(-1, 1)
            said = out.argmax(1, keepdim=True).double()
        else:
            said = out.double().view(len(out), -1)
            truth = y.double().view(len(out), -1)
        return self._eval({"y_true": truth.numpy(), "y_pred": said.numpy()})

    def of_pairs(self, scores: Tensor, present: int) -> float:
        """The figure of the scores [M] of pairs, the first ``present`` of them joined."""
        above, below = scores[:present].float(), scores[present:].float()
        if self.metric == "mrr":
            below = below.view(present, -1)
        return self._eval({"y_pred_pos": above, "y_pred_neg": below})

    def _eval(self, given: dict[str, Any]) -> float:
        try:
            found = self.evaluator.eval(given)
        except (RuntimeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"ogb's Evaluator cannot judge {self.evaluator.name!r}: {error}") from error
        if self.metric == "mrr":
            return float(found["mrr_list"].mean())
        return float(found[self.metric])


def _evaluators(meta: Meta) -> Any:
    """The class Evaluator of that family.

    Its file is loaded by itself: importing the package starts a thread that asks the network for a newer version, and
    imports what is there of DGL.
    """
    found = importlib.util.find_spec("ogb")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"judging by OGB's Evaluator {INSTALL}")
    path = Path(next(iter(found.submodule_search_locations))) / FAMILIES[meta.family] / "evaluate.py"
    spec = importlib.util.spec_from_file_location(f"_ogb_{meta.family}_evaluate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Evaluator


def judge_rows(
    run: Pretrained, data: Dataset, shown: Dataset, figure: Figures, tuning: dict[str, Any] | None, seed: int
) -> Judged:
    """Nodes or graphs, by a linear probe on frozen codes, or, with ``tuning``, by encoder and head trained together."""
    split, y = split_of(shown), shown.y
    assert y is not None
    assert data.y is not None
    train, val = (rows[known(y[rows])] for rows in (split.train, split.val))
    if not len(train) or not len(val):
        raise UserError(f"data set {data.name!r} has no labelled training or validation rows; give some labels")
    said, parameters, chosen = (
        probe(run, shown, train, val, figure, seed) if tuning is None else fine_tune(run, shown, figure, seed, tuning)
    )
    answers = data.y
    return Judged(
        figure(said(split.val), y[split.val]), lambda: figure(said(split.test), answers[split.test]),
        "probe" if tuning is None else "head", parameters, chosen,
    )  # fmt: skip


def probe(
    run: Pretrained, shown: Dataset, train: Tensor, val: Tensor, figure: Figures, seed: int
) -> tuple[Outputs, int, str]:
    """A linear layer on frozen codes, fitted to the labels of the rows ``train`` and chosen on the rows ``val``.

    Classes: the layer of the protocol node-linear, at the best validation epoch. Numbers: the ridge regression of
    graph-ridge, one a column. Yes/no labels: logistic regression, missing ones left out. Codes are standardised by the
    training rows, but not those of nodes for classes, as in that protocol.
    """
    codes, y = run.embed(shown), shown.y
    assert y is not None
    kind = {"acc": CLASSES, "rmse": NUMBERS}.get(figure.metric, YES_OR_NO)
    if not (kind == CLASSES and shown.task == "node"):
        mean, std = codes[train].mean(0), codes[train].std(0, correction=0)
        codes = (codes - mean) / torch.where(std > 1e-6 * mean.abs(), std, 1.0)
    T = y[0].numel()
    if kind == CLASSES:
        each = lambda said, truth: torch.tensor([figure(one, truth) for one in said], dtype=torch.double)  # noqa: E731
        fitted = fit_linear(Seen(codes[train], y[train], codes[val], y[val], each, ""), (seed,))
        said = "best validation epoch"
        C = int(y[torch.cat([train, val])].max()) + 1
        return lambda rows: fitted.predict(codes[rows])[said][0], C * (codes.size(1) + 1), fitted.chosen[0]
    if kind == NUMBERS:
        columns = [_ridge(codes, column, train, val) for column in y.view(len(y), -1).T]
        chosen = ", ".join(dict.fromkeys(column.chosen[0] for column in columns))
        return (
            lambda rows: torch.cat([column.predict(codes[rows])[""] for column in columns]).T,
            T * (codes.size(1) + 1), chosen,
        )  # fmt: skip
    weight, bias, chosen = fit_yes_no(codes[train], y[train], codes[val], y[val], figure, run.device)
    return lambda rows: F.linear(codes[rows], weight, bias), T * (codes.size(1) + 1), chosen


def _ridge(codes: Tensor, y: Tensor, train: Tensor, val: Tensor) -> Any:
    """Ridge regression of one column of labels [rows]; the mean of the columns' errors is the Evaluator's."""
    train, val = (rows[y[rows].isfinite()] for rows in (train, val))
    if len(train) < 2:
        raise UserError("a column of labels has fewer than two training rows, too few for a regression")
    return fit_ridge(
        Seen(codes[train], y[train].double(), codes[val], y[val].double(), root_mean_square_error), (0,)
    )  # fmt: skip


def fit_yes_no(
    train: Tensor, y: Tensor, val: Tensor, val_y: Tensor, figure: Figures, device: torch.device
) -> tuple[Tensor, Tensor, str]:
    """Weight [T, D] and bias [T] of a logistic regression for T labels [n, T], NaN where one is missing.

    Starts from zero, so that nothing is random; weight decay and epoch, looked at every tenth, are those with the best
    figure on the validation rows. All weight decays train at once, as one wide layer.
    """
    y, G, D = y.view(len(y), -1).to(device), len(DECAYS), train.size(1)
    T = y.size(1)
    seen, truth = y.isfinite()[:, None], y.nan_to_num()[:, None].expand(-1, G, T)
    rows, others = train.to(device), val.to(device)
    weight, bias = torch.zeros(G, T, D, device=device), torch.zeros(G, T, device=device)
    optimizer = torch.optim.Adam([weight.requires_grad_(), bias.requires_grad_()], lr=RATE)
    decay = torch.tensor(DECAYS, device=device)
    best, kept = -float("inf"), (torch.zeros(T, D), torch.zeros(T), "")
    for epoch in range(1, EPOCHS + 1):
        out = F.linear(rows, weight.view(G * T, D), bias.view(-1)).view(-1, G, T)
        loss = F.binary_cross_entropy_with_logits(out, truth, reduction="none").masked_fill(~seen, 0).sum() / seen.sum()
        optimizer.zero_grad()
        (loss + 0.5 * (decay * weight.square().sum((1, 2))).sum()).backward()
        optimizer.step()
        if epoch % LOOK:
            continue
        for g in range(G):
            layer = weight[g].detach(), bias[g].detach()
            score = figure(F.linear(others, *layer).cpu(), val_y)
            if score > best:
                best, kept = score, (layer[0].cpu().clone(), layer[1].cpu().clone(), f"weight decay {DECAYS[g]:g}")
    return kept


def fine_tune(
    run: Pretrained, shown: Dataset, figure: Figures, seed: int, tuning: dict[str, Any]
) -> tuple[Outputs, int, str]:  # fmt: skip
    """A copy of the encoder and a linear head, trained together as ``Pretrained.finetune`` does.

    The epoch with the best figure of the Evaluator on the validation rows is kept; Diverged where it is finite in none.
    """
    sign, transform = 1 if figure.higher_is_better else -1, run.plan.transform

    def score(out: Tensor, y: Tensor) -> float:
        return sign * figure(out, y) if out.isfinite().all() else float("nan")

    encoder, head, lines, _ = finetune(run.encoder, shown, transform, seed=seed, score=score, **tuning)
    finite = [line for line in lines if np.isfinite(line["validation score"])]
    best = max(finite, key=lambda line: line["validation score"])
    loader = loader_for(shown, transform, run.device, tuning.get("batch_size", 1), seed)
    return (
        lambda rows: outputs(encoder, head, loader, rows), sum(p.numel() for p in head.parameters()),
        f"epoch {best['epoch']} of {len(lines)}",
    )  # fmt: skip


def judge_pairs(
    run: Pretrained, data: Dataset, shown: Dataset, figure: Figures, decoder: str | None, val_edges: bool, seed: int
) -> Judged:
    """Pairs of nodes, by a ``decoder`` of frozen codes: of the graph of training edges, for validation always."""
    split, held = split_of(data), _pairs_of(data)
    codes = run.embed(shown)
    later = run.embed(shown.replace(graphs=[data.with_val])) if val_edges else codes
    parameters, chosen = 0, "nothing"
    if decoder == "mlp":
        some = _some_pairs(*held["val"], own=figure.metric == "mrr")
        truth = (torch.arange(some[0].size(1)) < some[1]).long()

        def each(scores: Tensor, truth: Tensor) -> Tensor:
            present = int(truth.sum())
            return torch.tensor([figure.of_pairs(one, present) for one in scores], dtype=torch.double)

        ones = torch.ones(split.train.size(1), dtype=torch.long)
        train = Pairs(codes, split.train, data.graph)
        fitted = fit_decoder(Seen(train, ones, Pairs(codes, some[0], data.graph), truth, each), (seed,))
        score = lambda codes, ends: fitted.predict(Pairs(codes, ends, data.graph))[""][0]  # noqa: E731
        parameters, chosen = HIDDEN * codes.size(1) + 2 * HIDDEN + 1, "epoch of the decoder"
    elif decoder == "own":
        own = run._decoder(codes)
        if own is None:
            raise UserError(f"{run.config['method']} has no decoder of pairs of its own; choose decoder 'mlp' or 'dot'")
        score = lambda codes, ends: torch.cat([own(codes, part).float().cpu() for part in ends.split(CHUNK, 1)])  # noqa: E731
    else:
        score = lambda codes, ends: torch.cat([dot(codes, part) for part in ends.split(CHUNK, 1)])  # noqa: E731

    def of(part: str, codes: Tensor) -> float:
        ends, present = held[part]
        return figure.of_pairs(score(codes, ends), present)

    return Judged(of("val", codes), lambda: of("test", later), "decoder", parameters, chosen)


def _pairs_of(data: Dataset) -> dict[str, tuple[Tensor, int]]:
    """Joined pairs before absent ones [2, M], and how many are joined, of the parts "val" and "test"."""
    split, found = split_of(data), {}
    for part, present, absent in (("val", split.val, split.val_absent), ("test", split.test, split.test_absent)):
        if absent is None or not absent.numel():
            raise UserError(f"the split of {data.name!r} has no absent pairs in its {part} part, to compare with")
        found[part] = torch.cat([present, absent], 1), present.size(1)
    return found


def _some_pairs(ends: Tensor, present: int, own: bool) -> tuple[Tensor, int]:
    """Of pairs with candidates of their ``own`` every few, so that at most about a million pairs choose a decoder."""
    if not own or ends.size(1) <= MOST_PAIRS:
        return ends, present
    step = -(-ends.size(1) // MOST_PAIRS)
    candidates = ends[:, present:].view(2, present, -1)[:, ::step]
    return torch.cat([ends[:, :present:step], candidates.reshape(2, -1)], 1), len(range(0, present, step))
