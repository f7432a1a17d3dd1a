"""How a recipe's settings cut raw items into tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from graphssl.backbones import Backbone
from graphssl.data.dataset import Alter
from graphssl.errors import UserError
from graphssl.recipes.base import Spec, backbone_of
from graphssl.tokens import Tokenizer, alter_for, from_json

FIELDS = {
    "patch": "size", "frames": "frames", "steps": "steps", "groups": "groups", "neighbours": "neighbours",
    "edges": "edges",
}  # fmt: skip


def tokenizer_for(spec: Spec, edges: str | None = None, **given: Any) -> Tokenizer | None:
    """How ``spec``'s items are cut: as the data set does, with what is ``given`` (not None) in its place.

    ``edges`` holds where the tokenizer has a choice of edges. None for a data set of graphs. UserError for a setting
    that this kind of data has not.
    """
    asked = {key: value for key, value in given.items() if value is not None}
    if spec.tokens is None:
        if asked:
            raise UserError(f"{spec.name!r} holds graphs, which are not cut; leave out {', '.join(asked)}")
        return None
    usual: Any = from_json(spec.tokens)
    known = {field.name for field in fields(usual)}
    for key in asked:
        if FIELDS[key] not in known:
            fits = ", ".join(name for name, field in FIELDS.items() if field in known) or "nothing"
            raise UserError(f"{key} is no setting for {spec.kind}, which take {fits}; leave it out")
    changes = {FIELDS[key]: value for key, value in asked.items()}
    if edges is not None and "edges" in known:
        changes.setdefault("edges", edges)
    return replace(usual, **changes)


def width_of(spec: Spec, tokenizer: Tokenizer | None) -> int:
    """Width of a node's content once items are cut so."""
    return spec.dim if tokenizer is None else tokenizer.width(spec.shape)


def position_of(spec: Spec, position: str | None) -> str:
    """``position``, or what suits the data: sines and cosines for grids, an MLP for places in space, else none."""
    if position is not None:
        return position
    if not spec.axes:
        return "none"
    return "mlp" if spec.kind in ("graphs", "points") else "sincos"


def placed(spec: Spec) -> dict[str, Any]:
    """What ``backbone_of`` is to be told of where nodes stand, for transformers."""
    return {"axes": spec.axes, "position": position_of(spec, None)}


@dataclass(frozen=True)
class Cut:
    """How raw items are altered and cut as a recipe's settings say, and the backbone that reads the pieces."""

    tokenizer: Tokenizer | None  # None: graphs, which are not cut
    alter: Alter | None  # what training does to items before
    dim: int  # width of a node's content
    position: str  # how places are read
    body: Backbone


def cut_for(
    spec: Spec, encoder: str | nn.Module, width: int, layers: int, *, pool: str, augment: str = "none",
    edges: str | None = None, joined: bool = False, position: str | None = None, patch: int | None = None,
    frames: int | None = None, steps: int | None = None, groups: int | None = None, neighbours: int | None = None,
    **options: Any,
) -> Cut:  # fmt: skip
    """``spec``'s items altered, cut and read as a recipe's settings say; ``options`` are those of ``backbone``.

    ``edges`` says how tokens are joined, by default not at all for a "transformer", unless ``joined`` says that
    something else looks at edges. UserError for settings that this kind of data has not.
    """
    if edges is not None and "edges" not in (spec.tokens or {}):
        raise UserError(f"edges is no setting for {spec.kind}, which come with theirs; leave it out")
    bare = "none" if encoder in ("transformer", "transformer+checkpoint") and not joined else None
    tokenizer = tokenizer_for(
        spec, edges or bare, patch=patch, frames=frames, steps=steps, groups=groups, neighbours=neighbours
    )
    dim, where = width_of(spec, tokenizer), position_of(spec, position)
    body = backbone_of(
        spec, encoder, [width] * layers, dim=dim, axes=spec.axes, position=where, extra=int(pool == "class"), **options
    )
    return Cut(tokenizer, alter_for(spec.kind, augment), dim, where, body)
