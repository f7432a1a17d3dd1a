"""What every pretext method is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from graphssl.encoder import Encoder
from graphssl.graph import Graph


class Method(nn.Module, ABC):
    """A pretext task around an encoder. Concrete methods are final: hold one, do not subclass one."""

    encoder: Encoder  # what survives pretraining
    pretexts: tuple[str, ...] = ()  # names of protocols whose target it is trained to predict, for the report to flag
    why_whole: str = ""  # why it cannot learn from parts of one graph; "": it can, and counts the rows that seeds name
    tells_edges: bool = False  # from pairs that are none: a part of a graph has to hold all edges among its nodes
    contrasts: bool = False  # all rows that count with one another: a node must not be among them twice
    sees_labels: bool = False  # labels were handed to it: protocols refuse to judge it where they came from

    @abstractmethod
    def forward(self, graph: Graph, generator: Generator | None = None) -> dict[str, Tensor]:
        """Named scalar losses, for the log. What is random comes from ``generator``, dropout aside."""

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The one scalar to differentiate: the sum, unless a method says otherwise."""
        return torch.stack(list(losses.values())).sum()

    def logged(self) -> dict[str, Tensor]:
        """Numbers of the last step for the log beside its losses."""
        return {}

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with the fraction of training done; teachers move here."""

    @property
    def settled(self) -> bool:
        """Whether its loss means the same as before; early stopping waits until it does."""
        return True

    def pair_codes(self, graph: Graph) -> Tensor:
        """Codes [N, D] that ``score`` reads in training: the encoder's, unless a method says otherwise."""
        return self.encoder(graph)

    def score(self, codes: Tensor, pairs: Tensor) -> Tensor | None:
        """How likely each of ``pairs`` [2, M] is an edge, [M], by the method's own decoder; None where it has none."""
        return None

    def reconstruct(self, graph: Graph, generator: Generator | None = None) -> tuple[Tensor, Tensor] | None:
        """Which nodes were hidden [N] and what the method makes of all content [N, F]; None where it rebuilds none."""
        return None

    def step_bytes(self, nodes: int, edges: int) -> int:
        """About how many bytes of activations one step keeps for a batch of that size; a floor, not a ceiling."""
        body = self.encoder.backbone
        kept = 1 if getattr(body, "checkpointed", False) else 3
        return 4 * nodes * kept * sum(getattr(body, "widths", ()))


def mark_of(tensors: Iterable[Tensor]) -> Tensor:
    """A number that tells ``tensors`` from others, for a buffer: what is no part of the weights but must come again."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return torch.tensor(int.from_bytes(digest.digest()[:7], "big"))
