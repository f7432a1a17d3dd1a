"""The maskers of the recipes for raw items, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from graphssl.errors import UserError, unknown
from graphssl.masks import COLORS, Block, Color, Disjoint, Frames, Masker, Near, Parts, Ramp, Tube, Uniform
from graphssl.recipes.base import Spec
from graphssl.tokens import Joints, Tokenizer
from graphssl.tokens.skeletons import limbs

MASKERS: dict[str, Callable[[float], Masker]] = {
    "uniform": Uniform, "near": Near, "block": Block, "tube": Tube, "frames": Frames, "disjoint": Disjoint,
    **{f"color-{color}": partial(Color, color=color) for color in COLORS},
}  # fmt: skip
TIMELESS = ("images", "points", "voxels")  # kinds of items whose nodes stand in space alone


def masker_named(
    name: str, mask: float, spec: Spec, tokenizer: Tokenizer | None, *, views: bool = False
) -> Masker:  # fmt: skip
    """The masker of that name for ``spec``'s items cut so; UserError where they lack what it needs.

    ``views`` says that the method takes several masks of a graph.
    """
    if name == "parts":
        bones = tokenizer.bones if isinstance(tokenizer, Joints) else ()
        if not bones or spec.shape[1] is None:
            raise UserError(f"masker 'parts' needs skeletons with bones; {spec.name!r} has none, so choose 'uniform'")
        return Parts(mask, limbs(bones, spec.shape[1]))
    if name not in MASKERS:
        raise unknown("masker", name, (*MASKERS, "parts"), see="the recipe of mae")
    if name == "disjoint" and not views:
        raise UserError("masker 'disjoint' makes two masks a step, which mae and point-mae take; choose 'uniform'")
    if name in ("tube", "frames") and spec.kind in TIMELESS:
        raise UserError(f"masker {name!r} goes by time, and {spec.kind} have none; choose 'near' or 'uniform'")
    if name == "block" and (not spec.edges if tokenizer is None else getattr(tokenizer, "edges", "") == "none"):
        raise UserError(
            f"masker 'block' goes along edges, and {spec.name!r} has none; choose "
            + ("'uniform'" if tokenizer is None else "masker='near', which goes by place, or other edges")
        )
    return MASKERS[name](mask)


def ramped(masker: Masker, end: float | None) -> Masker | Ramp:
    """``masker`` with a share that moves to ``end`` as training goes on, where one is given."""
    return masker if end is None else Ramp(masker, end)
