"""From a plan and data to what the steps of a run see: which loader, and why."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from graphssl import processes
from graphssl.data import Dataset
from graphssl.data.loader import Batches, Full
from graphssl.data.samplers import SEEDS, Ahead, Loading, Sampled, sampler_for
from graphssl.errors import UserError
from graphssl.recipes import Plan
from graphssl.runner import free_bytes, step_need
from graphssl.select import Best, hold_out

BATCH = 32  # graphs of a set a step, where nobody says
SPARE = 0.8  # of what is free that a step of the whole graph may take


def batches_for(
    data: Dataset, plan: Plan, device: torch.device, seed: int = 0, slots: int = 1
) -> tuple[Batches | Full | Sampled | Ahead, Best | None]:  # fmt: skip
    """What gives the Graph of each (step, slot), and what chooses the epoch to end with, where the plan asks for that.

    Raises UserError where the loader does not go with the data or the method.
    """
    loading, size = plan.loading, plan.batch_size
    if data.task == "graph":
        if loading.loader not in ("auto", "full"):
            raise UserError(
                f"{data.name!r} is a set of graphs, which comes in batches of whole graphs; loader={loading.loader!r} "
                "is for one large graph: leave it out"
            )
        return Batches(data, plan.transform, device, size or BATCH, seed, plan.alter, plan.views, slots), None
    how, why = chosen(data, plan, device)
    _check_used(how, plan)
    if how == "full":
        if size is not None and plan.epochs:
            way_out = f", as {plan.method.why_whole}" if plan.method.why_whole else ", or choose a loader"
            raise UserError(
                f"{data.name!r} is one graph, trained on whole; batch_size is for parts of it (loader='neighbor' or "
                f"another) and for sets of graphs: leave it out{way_out}"
            )
    elif plan.method.why_whole:
        raise UserError(
            f"loader={how!r} does not go with this method: {plan.method.why_whole}; choose loader='full', or another "
            "method"
        )
    if why:
        warnings.warn(why, stacklevel=3)
    if how == "full":
        kept, pairs = hold_out(data, plan.select, seed)
        full = Full(kept, plan.transform, device)
        return full, Best(plan.method, full.graph, pairs, plan.select, plan.epochs) if pairs and plan.select else None
    if plan.method.contrasts and how == "walk" and processes.count() > 1:
        raise UserError(
            f"loader='walk' may give a node to several of the {processes.count()} processes, and this method contrasts "
            "all their nodes; choose loader='neighbor' or 'cluster', or train on one process"
        )
    return _sampled(how, data, plan, device, seed, slots, fits=not why or processes.count() > 1)


def _sampled(
    how: str, data: Dataset, plan: Plan, device: torch.device, seed: int, slots: int, fits: bool
) -> tuple[Sampled | Ahead, Best | None]:  # fmt: skip
    """Batches that are parts of the graph; ``fits``: nothing says that the whole of it is too large for memory."""
    whole, local = plan.transform.split()
    best, select = None, plan.select if fits and data.stored is None else None
    if plan.select is not None and select is None and plan.epochs:
        warnings.warn(
            f"{data.name!r} is not encoded whole, as it is too large or stays on the disk, so no edges are held out "
            "and the run ends with its last epoch (select=False says so)", stacklevel=4,
        )  # fmt: skip
    if data.stored is not None:
        source: Any = data.stored
        free = free_bytes(torch.device("cpu"))
        if free is not None and source.x.nbytes > free:
            source = source.unordered()
        if whole.standardize or (whole.undirected and not source.undirected):
            what = "standardize" if whole.standardize else "undirected"
            raise UserError(
                f"this recipe's {what}=True is for the whole of {data.name!r}, which stays on the disk; "
                + ("standardise the features before" if whole.standardize else "say --undirected to")
                + f" graphssl convert, or {what}=False to the recipe"
            )
    else:
        kept, pairs = hold_out(data, select, seed)
        source = whole(kept.graph)
        if pairs is not None and select is not None:
            best = Best(plan.method, local(source).to(device), pairs, select, plan.epochs)
    size = plan.batch_size or SEEDS
    method = plan.method
    sampler, units = sampler_for(
        how, plan.loading, source, size, bool(method.tells_edges), bool(method.contrasts), seed
    )  # fmt: skip
    sampled = Sampled(source, sampler, local, device, units, seed, slots)
    if plan.loading.workers:
        return Ahead(sampled, plan.loading.workers, range(processes.rank(), slots, processes.count())), best
    return sampled, best


def chosen(data: Dataset, plan: Plan, device: torch.device) -> tuple[str, str]:
    """The loader that is meant for the one graph of ``data``, and, where "auto" does not take all of it, why not."""
    how = plan.loading.loader
    if how != "auto":
        return how, ""
    if plan.method.why_whole or (plan.epochs == 0 and data.stored is None):
        return "full", ""
    if plan.epochs == 0:  # nothing is trained, so nothing is read into memory
        return "neighbor", ""
    if plan.batch_size is not None:
        return "neighbor", ""
    several = processes.count()
    if several > 1:
        return "neighbor", f"{data.name} is trained on by neighbour sampling, as {several} processes share its nodes"
    need, free = step_bytes(data, plan), free_bytes(device)
    if free is None or need <= SPARE * free:
        return "full", ""
    return "neighbor", (
        f"{data.name} is trained on by neighbour sampling: a step of all its {data.num_nodes} nodes needs about "
        f"{need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free (loader='full' does not ask); an epoch takes "
        f"{-(-data.num_nodes // SEEDS)} steps then, not one"
    )


def _check_used(how: str, plan: Plan) -> None:
    """Raises UserError for a setting of another loader than the one that is used."""
    usual = Loading()
    for key, owner in (("fanouts", "neighbor"), ("walk_length", "walk"), ("ego", "local")):
        if getattr(plan.loading, key) != getattr(usual, key) and how != owner:
            raise UserError(
                f"{key} is a setting of loader={owner!r}, and the loader is {how!r}; choose it, or leave it out"
            )
    if plan.loading.workers and how == "full":
        raise UserError("workers draw parts of a graph ahead, and this one is trained on whole; leave them out")


def step_bytes(data: Dataset, plan: Plan) -> int:
    """About how many bytes a step of the whole graph takes, its content included where that is not in memory yet."""
    source = data.source
    content = 0 if data.stored is None else 4 * source.x.size(0) * source.x.size(1) + 16 * source.num_edges
    return content + step_need(plan.method, source.num_nodes, source.num_edges)
