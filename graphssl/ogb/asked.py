"""What an entry may ask for: seeds, a decoder, settings of fine-tuning, and OGB's rules about them.

Rules: ogb.stanford.edu/docs/leader_overview, ogb.stanford.edu/docs/leader_rules.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from graphssl.data import Dataset
from graphssl.data.ogb_files import Meta
from graphssl.errors import UserError, unknown
from graphssl.finetune import finetune as finetune_encoder
from graphssl.ogb.sources import FILE, RAW
from graphssl.recipes.base import check

SEEDS = 10  # that the rules ask for
FEWER = {"ogbn-papers100M": 3}  # of these sets
RULES = "ogb.stanford.edu/docs/leader_rules"
VAL_EDGES = "ogbl-collab"  # the one set whose validation edges may be model input
DECODERS = {
    "mlp": "an MLP on the product of two codes, trained on training pairs (that of the protocol link-mlp)",
    "dot": "the dot product of two codes, nothing trained",
    "own": "the method's own, as pretraining left it",
}
TUNING = ("epochs", "lr", "head_lr", "weight_decay", "batch_size")  # settings of fine-tuning


def against_rules(name: str, seeds: list[int], val_edges: bool = False, source: str = RAW) -> list[str]:
    """What of an entry is against OGB's rules, or cannot be shown to keep them; [] where it may be submitted."""
    fewest, found = FEWER.get(name, SEEDS), []
    if len(seeds) < fewest:
        of = f" of {name}" if name in FEWER else ""
        found.append(f"{count_text(seeds)}; the rules ask for {fewest}{of}")
    if val_edges and name != VAL_EDGES:
        found.append(f"validation edges as model input, which {RULES} allows for {VAL_EDGES} alone")
    if source == FILE:
        found.append("split as in the file, not checked")
    return found


def keep_rules(against: list[str], draft: bool) -> None:
    if against and not draft:
        raise UserError(
            f"no entry for OGB: {'; '.join(against)}; change that, or say draft=True (--draft) for a block that says "
            "it is none to submit"
        )


def seeds_of(seeds: str | Iterable[int]) -> list[int]:
    """The numbers that "0-9" or "0,3,7" mean, in order; UserError for other text, or a number named twice."""
    wrong = UserError(f"seeds are {seeds!r}; write whole numbers as 0-9 or 0,3,7")
    found: list[int] = []
    if isinstance(seeds, str):
        for part in seeds.replace(" ", "").split(","):
            ends = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
            if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
                raise wrong
            found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    else:
        found = list(seeds)
    if not found or any(isinstance(seed, bool) or not isinstance(seed, int) for seed in found):
        raise wrong
    if len(set(found)) < len(found):
        raise UserError(f"seeds {seeds!r} name one twice; name each once")
    return sorted(found)


def count_text(seeds: list[int]) -> str:
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def seed_text(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def decoder_of(meta: Meta, decoder: str | None, finetune: bool, val_edges: bool, data: Dataset) -> str | None:
    """The decoder that is meant; None for a set without pairs. UserError for what its family does not have."""
    if data.task != "link":
        for key, asked in (("decoder", decoder is not None), ("val_edges", val_edges)):
            if asked:
                raise UserError(f"{key} is for link sets, and {meta.name!r} is about {data.task}s; leave it out")
        return None
    if finetune:
        raise UserError(
            f"{meta.name!r} is a link set, whose pairs a decoder scores on frozen codes; leave out finetune, and "
            f"choose a decoder: {', '.join(DECODERS)}"
        )
    if decoder is not None and decoder not in DECODERS:
        raise unknown("decoder", decoder, DECODERS)
    if val_edges and data.with_val is None:
        raise UserError(f"edges of {meta.name!r} have features, and its validation edges none; leave out val_edges")
    return decoder or "mlp"


def tuning_of(given: dict[str, Any], finetune: bool, data: Dataset | None = None) -> dict[str, Any] | None:
    """All settings of fine-tuning (on ``data``), with those ``given``; None where nothing is fine-tuned."""
    if not finetune:
        if given:
            raise UserError(f"{min(given)} is a setting of fine-tuning, which was not asked for; say finetune")
        return None
    usual = {key: inspect.signature(finetune_encoder).parameters[key].default for key in TUNING}
    if data is not None and data.task != "graph":
        del usual["batch_size"]
        if "batch_size" in given:
            raise UserError(f"{data.name!r} is one graph, fine-tuned on whole; leave out batch_size of fine-tuning")
    for key, value in given.items():
        if key not in usual:
            raise unknown("setting of fine-tuning", key, TUNING)
        usual[key] = check(key, value, type(usual[key]))
    if usual["epochs"] < 1:
        raise UserError(f"epochs of fine-tuning is {usual['epochs']}; choose 1 or more")
    return usual


def parse_tuning(items: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Settings of fine-tuning from text, by key; UserError for one that is unknown or no number."""
    usual, found = tuning_of({}, True) or {}, {}
    for key, text in items:
        if key not in usual:
            raise unknown("setting of fine-tuning", key, TUNING)
        try:
            found[key] = type(usual[key])(text)
        except ValueError:
            kind = "a whole number" if isinstance(usual[key], int) else "a number"
            raise UserError(f"setting {key} of fine-tuning expects {kind}, got {text!r}") from None
    return found
