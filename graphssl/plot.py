"""A picture of codes."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from graphssl.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 3000  # points that are drawn; t-SNE's time grows faster than linearly


def check_picture(path: Path) -> None:
    """Raises UserError where nothing can be drawn to ``path``: another kind of file, or matplotlib is missing."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"cannot draw to {path.name!r}; end its name in .png, .pdf or .svg")
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("drawing needs matplotlib; pip install 'graphssl[plot]'")


def draw(codes: Tensor, y: Tensor | None = None, *, classes: Sequence[str] = (), title: str = "") -> Figure:
    """A figure of codes [N, D] as a 2-D t-SNE map, coloured by ``y`` [N] where given; over 3000 rows are thinned."""
    from matplotlib.figure import Figure  # slow to import, and optional

    rows = np.unique(np.linspace(0, len(codes) - 1, min(len(codes), MOST)).round().astype(int))
    across, up = two_dimensional(codes.numpy()[rows]).T
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    labels = None if y is None or y.numel() != len(codes) else y.flatten().numpy()[rows]
    if labels is None or np.issubdtype(labels.dtype, np.floating):
        drawn = axes.scatter(across, up, s=8, c=labels, linewidths=0)
        if labels is not None:
            figure.colorbar(drawn, ax=axes, label="label")
    else:
        for value in np.unique(labels):
            same = labels == value
            name = "no label" if value < 0 else classes[value] if value < len(classes) else f"class {value}"
            axes.scatter(across[same], up[same], s=8, color=f"C{value % 10}", label=name, linewidths=0)
        axes.legend(markerscale=2, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(title=title, xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    return figure


def two_dimensional(codes: np.ndarray) -> np.ndarray:
    """Codes [N, D] to points [N, 2]: t-SNE of the first 50 principal components; the same for the same codes."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(codes) < 5 or codes.shape[1] < 2 or not np.ptp(codes):
        flat = codes - codes.mean(0)
        return np.pad(flat, ((0, 0), (0, max(0, 2 - flat.shape[1]))))[:, :2]
    reduced = PCA(min(50, *codes.shape), random_state=0).fit_transform(codes)
    return TSNE(2, init="pca", perplexity=min(30, (len(codes) - 1) / 3), random_state=0).fit_transform(reduced)
