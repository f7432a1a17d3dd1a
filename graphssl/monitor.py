"""Whether codes collapse, seen without labels, and when to stop for it or for the loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl import processes
from graphssl.backbones import evaluating
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.graph import Graph

LOOKS = 20  # in a run
ROWS = 1024  # nodes whose codes are looked at
FEWEST = 16  # with fewer nodes nothing is said
FALLEN = 0.1  # of the highest so far: what counts as a fall
WAITS = {"loss": 20, "rank": 3}  # of EarlyStop: epochs, looks
FLAT = 0.01  # a spread below this counts as none at all


def effective_rank(codes: Tensor) -> float:
    """exp of the entropy of the singular values of ``codes`` [N, D], columns centred, scaled to sum one.

    From 1 (all on a line) to min(N, D) (even in all directions); 0 where all rows are the same. Roy and Vetterli 2007,
    used to judge codes without labels in RankMe, arXiv:2210.02885, which does not centre.
    """
    centred = codes.double() - codes.double().mean(0)
    small = centred @ centred.t() if codes.size(0) < codes.size(1) else centred.t() @ centred
    values = torch.linalg.eigvalsh(small).clamp(min=0).sqrt()
    total = values.sum()
    if total <= 1e-6 * codes.double().norm():
        return 0.0
    share = values / total
    return math.exp(-torch.special.xlogy(share, share).sum())


def spread(codes: Tensor) -> float:
    """Deviation of a column of ``codes`` [N, D] scaled to rows of length one, times sqrt(D), a mean over columns.

    About 1 where codes point everywhere, 0 where they all point the same way; SimSiam, arXiv:2011.10566, section 4.1.
    """
    unit = F.normalize(codes.double(), dim=1)
    return float(unit.std(0, correction=0).mean() * math.sqrt(codes.size(1)))


class Monitor:
    """Looks at an encoder's codes about twenty times in a run of ``epochs``; warns once where they collapse.

    ``graph`` holds the nodes looked at. Codes collapse where all point the same way, or where their effective rank less
    one, or their spread, falls below a tenth of the highest before. Looking draws no random numbers and changes no
    state.
    """

    def __init__(self, encoder: Encoder, graph: Graph, epochs: int, name: str):
        self.encoder, self.graph, self.epochs, self.name = encoder, graph, epochs, name
        self.every = max(1, epochs // LOOKS)
        self.highest: dict[str, float] = {}
        self.warned = False

    def look(self, epoch: int) -> dict[str, float]:
        """At an epoch whose turn it is, {"effective_rank", "spread"} for the log; else nothing."""
        if (epoch % self.every and epoch != self.epochs) or self.graph.num_nodes < FEWEST:
            return {}
        found = processes.agree(self._look)
        if found:
            self._judge(epoch, found)
        return found

    @torch.no_grad()
    def _look(self) -> dict[str, float]:
        with evaluating(self.encoder):
            codes = self.encoder(self.graph).float()
        count = min(ROWS, len(codes))
        rows = torch.arange(count, device=codes.device) * (len(codes) - 1) // (count - 1)
        codes = codes[rows]
        if not codes.isfinite().all():
            return {}  # the loop says what is to be said
        return {"effective_rank": effective_rank(codes), "spread": spread(codes)}

    def go_on(self, lines: Iterable[dict[str, float]]) -> None:
        """Takes up what the log says of the looks before."""
        for line in lines:
            self._remember(line)

    def _remember(self, found: dict[str, float]) -> None:
        for key in ("effective_rank", "spread"):
            if key in found:
                self.highest[key] = max(found[key], self.highest.get(key, 0.0))

    def _judge(self, epoch: int, found: dict[str, float]) -> None:
        floor = {"effective_rank": 1.0, "spread": 0.0}  # what is left of each where codes lie on a line
        fallen = [k for k, before in self.highest.items() if found[k] - floor[k] < FALLEN * (before - floor[k])]
        if (fallen or found["spread"] < FLAT) and not self.warned and processes.first():
            self.warned = True
            before = "".join(f", {value:.3g} before" for value in [self.highest.get("effective_rank")] if value)
            warnings.warn(
                f"the codes of {self.name} collapse: at epoch {epoch} of {self.epochs} their effective rank is "
                f"{found['effective_rank']:.3g} of {self.encoder.dim}{before}, their spread {found['spread']:.2g}; try "
                "a smaller lr, other views or masks, or stop earlier (early_stop='rank')",
                stacklevel=2,
            )
        self._remember(found)


class EarlyStop:
    """Whether to end a run early, without labels: ``"loss"`` or ``"rank"``, and how long to wait, as in "loss:50".

    "loss" ends it where the mean loss of an epoch has had no new low for that many epochs (20; DGI's reference waits as
    long, and goes back to the lowest); "rank" where the effective rank of the codes has had no new high for that many
    looks (3) of the monitor, which looks at no fewer than 16 nodes. The run keeps the weights it ends with. A loss that
    is drawn anew each step is noisy: wait longer. Nothing ends before a method is ``settled``. Of several tasks the
    losses count as they are, not as a balance weighs them.
    """

    def __init__(self, how: str):
        what, colon, number = how.partition(":") if isinstance(how, str) else ("", "", "")
        if what not in WAITS or (colon and not (number.isdecimal() and int(number) > 0)):
            raise UserError(
                f"early_stop is {how!r}; choose 'loss' or 'rank', or say how long to wait for a better one, as in "
                "'loss:50' or 'rank:5'"
            )
        self.key = {"loss": "loss", "rank": "effective_rank"}[what]
        self.sign, self.wait = 1 if what == "loss" else -1, int(number) if colon else WAITS[what]
        self.best, self.waited = math.inf, 0

    def done(self, line: dict[str, float], settled: bool = True) -> bool:
        """Whether the run ends with the epoch of which this is the log's line; ask once for each, in order."""
        if not settled:
            self.best, self.waited = math.inf, 0
        elif self.key in line:
            weighed = [key.removesuffix(" weight") for key in line if key.endswith(" weight")]
            tasks = [line[name] for name in weighed if name in line]
            value = self.sign * (sum(tasks) if tasks and self.key == "loss" else line[self.key])
            self.waited = 0 if value < self.best else self.waited + 1
            self.best = min(value, self.best)
        return self.waited >= self.wait
