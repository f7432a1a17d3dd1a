"""Histograms of oriented gradients of the images or videos that tokens were cut of: MaskFeat, arXiv:2112.09133.

Reference: facebookresearch/SlowFast at 198bf9d, slowfast/models/operators.py (HOGLayerC) and masked.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphssl.errors import UserError
from graphssl.graph import Graph
from graphssl.ops import dense
from graphssl.tokens.grids import Patches, Tubelets

CELL = 8  # pixels a side, as in the paper
BINS = 9  # orientations


def hog(images: Tensor, cell: int = CELL, bins: int = BINS) -> Tensor:
    """Histograms [B, C * bins, H / cell, W / cell] of images [B, C, H, W]: of each channel, ``bins`` a cell.

    Gradients are Sobel's, over the whole image and so across cells, mirrored at its border. Each pixel adds the length
    of its gradient to the bin of its direction among the 180 degrees, without a share for the next bin, as in the
    reference. Each cell's histogram of a channel is scaled to length one, whatever its contrast; a flat cell's is zero.
    """
    B, C, H, W = images.shape
    wide = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
    rows = wide[..., :-2, :] + 2 * wide[..., 1:-1, :] + wide[..., 2:, :]
    columns = wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]
    across, down = rows[..., 2:] - rows[..., :-2], columns[..., 2:, :] - columns[..., :-2, :]
    direction = (torch.atan2(down, across) / torch.pi * bins).floor().long() % bins
    votes = images.new_zeros(B, C, bins, H, W, dtype=torch.float32)
    votes.scatter_(2, direction[:, :, None], torch.hypot(across, down)[:, :, None])
    cells = F.avg_pool2d(votes.flatten(0, 1), cell).unflatten(0, (B, C))
    return F.normalize(cells, dim=2).flatten(1, 2)


@dataclass(frozen=True)
class HOG:
    """The histograms of the image or video that a Graph's tokens were cut of, laid out by token.

    ``tokenizer`` cut them: Patches or Tubelets; others have no grid of pixels. A cell has 8 pixels a side where patches
    do or a multiple, else it is the patch. Of a tubelet each frame counts; the reference has only the first.
    """

    tokenizer: Any

    def __post_init__(self):
        if not isinstance(self.tokenizer, Patches | Tubelets):
            kind = "graphs" if self.tokenizer is None else self.tokenizer.kind
            raise UserError(
                f"gradients of an image need pixels on a grid, which {kind} have not; describe them by their "
                "surroundings instead"
            )

    @property
    def cell(self) -> int:
        return CELL if self.tokenizer.size % CELL == 0 else self.tokenizer.size

    def width(self, shape: tuple[int | None, ...]) -> int:
        """Numbers a token for items of ``shape`` [C, H, W] or [T, C, H, W]; UserError where they are too small."""
        for side, what in zip(shape[-2:], ("rows", "columns"), strict=True):
            if side is not None and side < 2:
                raise UserError(f"an image of {side} {what} has no gradients; give it 2 or more")
        return self.tokenizer.width(shape) // self.cell**2 * BINS

    @torch.no_grad()
    def __call__(self, graph: Graph) -> Tensor:
        """[N, width]: of each token its channels, cells and frames, all of the graphs' content visible."""
        items = self.tokenizer.back(graph, dense(graph.x))
        whole = torch.stack(items) if len({item.shape for item in items}) == 1 else items
        maps = self._maps(whole) if isinstance(whole, Tensor) else [self._maps(item) for item in whole]
        # a map of histograms is an image of more channels, so what cut the images cuts it into the same tokens
        return replace(self.tokenizer, size=self.tokenizer.size // self.cell, edges="none")(maps).x

    def _maps(self, images: Tensor) -> Tensor:
        """Images [..., C, H, W] to histograms [..., C * bins, H / cell, W / cell]."""
        maps = hog(images.reshape(-1, *images.shape[-3:]), self.cell)
        return maps.view(*images.shape[:-3], *maps.shape[1:])
