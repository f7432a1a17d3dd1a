"""Pictures: a map of codes, and items beside what a method sees of them and rebuilds."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from graphssl.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 3000  # points that are drawn; t-SNE's time grows faster than linearly
MOVING = ("videos", "skeletons")  # kinds of items that may become a .gif
STRIP = 8  # frames of a moving item in a picture that stands still
HIDDEN = 0.5  # how grey a hidden pixel is drawn
PANELS = ("input", "masked input", "reconstruction")


def check_picture(path: Path) -> None:
    """Raises UserError where nothing can be drawn to ``path``: another kind of file, or matplotlib is missing."""
    if path.suffix.lower() not in (".png", ".pdf", ".svg", ".gif"):
        raise UserError(f"cannot draw to {path.name!r}; end its name in .png, .pdf or .svg, or in .gif for what moves")
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


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """Items of one kind as they are, as a method sees them (NaN where hidden) and as it rebuilds them."""

    kind: str
    given: Sequence[Tensor]
    covered: Sequence[Tensor]
    rebuilt: Sequence[Tensor]
    bones: tuple[tuple[int, int], ...] = ()  # of skeletons

    @property
    def moving(self) -> bool:
        return self.kind in MOVING


# draws one panel of one item, at one of its frames where it moves
Paint = Callable[[Any, int, int, int], None]  # (axes, item, panel, frame)


def draw_rebuilt(items: Rebuilt, title: str = "") -> Figure:
    """A figure with a row for each item and a column for each of ``PANELS``; of what moves a row a panel, in frames.

    Images keep their colours where they have three channels and are grey otherwise. Points, and voxels above the middle
    of their range, are dots in space, those that were hidden in another colour; bones are seen from where they spread
    most.
    """
    paint, count = painter(items), len(items.given)
    if not items.moving:
        figure, axes = grid(items, count, 3, title)
        for i, row in enumerate(axes):
            for panel, ax in enumerate(row):
                paint(ax, i, panel, 0)
                ax.set_title(PANELS[panel] if i == 0 else "", fontsize=9)
        return figure
    columns = min(STRIP, max(len(item) for item in items.given))
    figure, axes = grid(items, 3 * count, columns, title)
    for r, row in enumerate(axes):
        i, panel = divmod(r, 3)
        for ax, frame in zip(row, np.linspace(0, len(items.given[i]) - 1, columns).round().astype(int), strict=True):
            paint(ax, i, panel, int(frame))
        row[0].set_title(PANELS[panel], fontsize=9, loc="left")
    return figure


def film(items: Rebuilt, title: str = "") -> list[Any]:
    """Pillow images of the items' frames, panels side by side; shorter items wait on their last frame."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    paint = painter(items)
    figure, axes = grid(items, len(items.given), 3, title)
    canvas, shots = FigureCanvasAgg(figure), []
    for frame in range(max(len(item) for item in items.given)):
        for i, row in enumerate(axes):
            for panel, ax in enumerate(row):
                ax.clear()
                paint(ax, i, panel, min(frame, len(items.given[i]) - 1))
                ax.set_title(PANELS[panel] if i == 0 else "", fontsize=9)
        canvas.draw()
        shots.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return shots


def grid(items: Rebuilt, rows: int, columns: int, title: str) -> tuple[Figure, np.ndarray]:
    """An empty figure and its axes [rows, columns]."""
    from matplotlib.figure import Figure

    size = 1.2 if items.moving else 1.8
    height = size * rows + 0.6
    figure = Figure(figsize=(max(size * columns, 4.5), height))
    space = {"projection": "3d"} if items.kind in ("points", "voxels") else {}
    margins = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.55 / height, "wspace": 0.05, "hspace": 0.2}
    axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=space, gridspec_kw=margins)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va="top")
    return figure, axes


def painter(items: Rebuilt) -> Paint:
    """How items of that kind are drawn."""
    makers = {"images": _pixels, "videos": _pixels, "skeletons": _bones, "points": _dots, "voxels": _cells}
    return makers[items.kind](items)


def _panel(items: Rebuilt, i: int, panel: int) -> np.ndarray:
    return (items.given, items.covered, items.rebuilt)[panel][i].numpy()


def _pixels(items: Rebuilt) -> Paint:
    low, wide = _range(items)

    def paint(ax: Any, i: int, panel: int, frame: int) -> None:
        values = _panel(items, i, panel)
        picture = np.moveaxis(values[frame] if items.kind == "videos" else values, 0, -1)
        picture = ((picture - low) / wide).clip(0, 1)
        if picture.shape[-1] != 3:
            picture = picture.mean(-1, keepdims=True).repeat(3, -1)
        ax.imshow(np.where(np.isnan(picture), HIDDEN, picture), interpolation="nearest")
        ax.axis("off")

    return paint


def _bones(items: Rebuilt) -> Paint:
    ends = [end for a, b in items.bones for end in (a, b, -1)]

    def paint(ax: Any, i: int, panel: int, frame: int) -> None:
        whole = items.given[i].numpy()
        spread = np.ptp(whole, axis=(0, 1))
        widest = np.argsort(-spread, kind="stable")
        up, across = widest[0], widest[min(1, len(widest) - 1)]
        joints, hidden = _panel(items, i, panel)[frame], np.isnan(items.covered[i].numpy()[frame]).any(-1)
        flat = np.append(joints[:, [across, up]], [[np.nan, np.nan]], axis=0)  # its last row ends a line
        ax.plot(*flat[ends].T, color="0.6", linewidth=0.8, zorder=1)
        colour = np.where(hidden & (panel == 2), "C1", "C0")
        ax.scatter(joints[:, across], joints[:, up], s=4, c=colour, linewidths=0, zorder=2)
        _square(ax, whole[..., [across, up]].reshape(-1, 2))

    return paint


def _dots(items: Rebuilt) -> Paint:
    def paint(ax: Any, i: int, panel: int, frame: int) -> None:
        whole = items.given[i].numpy()[:, :3]
        hidden = np.isnan(items.covered[i].numpy()).any(-1)
        _scatter(ax, _panel(items, i, panel)[:, :3], hidden, panel)
        _square(ax, whole)

    return paint


def _cells(items: Rebuilt) -> Paint:
    low, wide = _range(items)

    def paint(ax: Any, i: int, panel: int, frame: int) -> None:
        values, hidden = _panel(items, i, panel), np.isnan(items.covered[i].numpy())
        full = values > low + wide / 2  # a hidden cell is not
        _scatter(ax, np.argwhere(full).astype(float), hidden[full], panel)
        _square(ax, np.argwhere(items.given[i].numpy() > low + wide / 2))

    return paint


def _range(items: Rebuilt) -> tuple[float, float]:
    """The least number in the items, and how much larger the largest is."""
    low = min(float(item.min()) for item in items.given)
    return low, max(float(item.max()) for item in items.given) - low or 1.0


def _scatter(ax: Any, places: np.ndarray, hidden: np.ndarray, panel: int) -> None:
    """Dots in space; what was ``hidden`` is missing from the masked input and in another colour once rebuilt."""
    shown = ~np.isnan(places).any(-1) & ~(hidden & (panel == 1))
    places, hidden = places[shown], hidden[shown] & (panel == 2)
    some = np.unique(np.linspace(0, len(places) - 1, min(len(places), MOST)).round().astype(int))
    ax.scatter(*places[some].T, s=3, c=np.where(hidden[some], "C1", "C0"), linewidths=0, depthshade=False)


def _square(ax: Any, places: np.ndarray) -> None:
    """Looks at where ``places`` [n, d] are, alike along all axes."""
    low, high = (places.min(0), places.max(0)) if len(places) else (np.zeros(3), np.ones(3))
    middle, half = (low + high) / 2, 0.55 * float((high - low).max() or 1.0)
    for name, centre in zip("xyz", middle, strict=False):
        getattr(ax, f"set_{name}lim")(centre - half, centre + half)
    if len(middle) == 3:
        ax.set_box_aspect((1, 1, 1), zoom=1.4)
    else:
        ax.set_aspect("equal")
    ax.axis("off")
