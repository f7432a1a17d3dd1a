"""Self-supervised pretraining for anything that is a graph."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphssl.api import evaluate as evaluate
    from graphssl.api import pretrain as pretrain
    from graphssl.backbones import list_encoders as list_encoders
    from graphssl.data import Dataset as Dataset
    from graphssl.data import convert_to_folder as convert_to_folder
    from graphssl.data import list_datasets as list_datasets
    from graphssl.data import load_dataset as load_dataset
    from graphssl.data import to_dataset as to_dataset
    from graphssl.encoder import Encoder as Encoder
    from graphssl.errors import Diverged as Diverged
    from graphssl.errors import LostProcess as LostProcess
    from graphssl.errors import OutOfMemory as OutOfMemory
    from graphssl.errors import UserError as UserError
    from graphssl.graph import Graph as Graph
    from graphssl.integrate import was as was
    from graphssl.methods import Method as Method
    from graphssl.pretrained import Pretrained as Pretrained
    from graphssl.pretrained import load as load
    from graphssl.probes import list_protocols as list_protocols
    from graphssl.recipes import list_methods as list_methods
    from graphssl.report import Report as Report
    from graphssl.tokens import Items as Items

__version__ = version("graphssl")

# where each public name lives; read when it is first asked for, so that `graphssl --help` need not import torch
HOMES = {
    "api": ("evaluate", "pretrain"),
    "backbones": ("list_encoders",),
    "data": ("Dataset", "convert_to_folder", "list_datasets", "load_dataset", "to_dataset"),
    "encoder": ("Encoder",),
    "errors": ("Diverged", "LostProcess", "OutOfMemory", "UserError"),
    "graph": ("Graph",),
    "integrate": ("was",),
    "methods": ("Method",),
    "pretrained": ("Pretrained", "load"),
    "probes": ("list_protocols",),
    "recipes": ("list_methods",),
    "report": ("Report",),
    "tokens": ("Items",),
}
HOME_OF = {name: home for home, names in HOMES.items() for name in names}
__all__ = list(HOME_OF)


def __getattr__(name: str) -> Any:
    if name in HOME_OF:
        return getattr(importlib.import_module(f"graphssl.{HOME_OF[name]}"), name)
    if name.startswith("_"):
        raise AttributeError(f"module 'graphssl' has no attribute {name!r}")
    try:
        return importlib.import_module(f"graphssl.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"graphssl.{name}":
            raise
        raise AttributeError(f"module 'graphssl' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
