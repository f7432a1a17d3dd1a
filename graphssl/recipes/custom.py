"""The plan around a Method object of the user's own."""

from __future__ import annotations

from pathlib import Path

from graphssl.data import Transform
from graphssl.errors import UserError
from graphssl.methods import Method
from graphssl.recipes.base import Plan, Recipe, Spec, adam, cosine_decay


def custom(method: Method | None, name: str, folder: Path | None = None) -> Recipe:
    """A recipe that hands out ``method`` as it is, with Adam and the settings below; UserError where it is None."""
    if method is None:
        raise UserError(
            f"the run in {folder} used a method of your own ({name}); pass load(folder, method=...) with one"
        )
    if not isinstance(method, Method):
        raise UserError(f"method must be a name, a graphssl.Method or a Pretrained, got {type(method).__name__}")

    def make(
        spec: Spec, *, lr: float = 1e-3, weight_decay: float = 0.0, decay: bool = True, epochs: int = 200,
        batch_size: int | None = None, clip: float | None = None, self_loops: bool = True, row_normalize: bool = False,
    ) -> Plan:  # fmt: skip
        return Plan(
            method=method, optimizer=adam(lr, weight_decay), epochs=epochs, schedule=cosine_decay if decay else None,
            batch_size=batch_size, clip=clip, transform=Transform(self_loops=self_loops, row_normalize=row_normalize),
        )  # fmt: skip

    return Recipe("custom", make, {}, {})
