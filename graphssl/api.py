"""The calls that users make."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphssl import processes, runner, store
from graphssl.backbones import evaluating, foreign
from graphssl.data import Dataset, Transform, is_path
from graphssl.data.loader import Full
from graphssl.encoder import Encoder
from graphssl.errors import UserError
from graphssl.loading import batches_for
from graphssl.methods import Method
from graphssl.monitor import EarlyStop
from graphssl.pretrained import (
    Pretrained,
    dataset_of,
    embed,
    fingerprint,
    judge_all,
    label_marks,
    load,
    subject_of,
    versions,
)
from graphssl.probes import EDGE_EXPOSURE, LinkCodes
from graphssl.recipes import Plan, Recipe, Spec, get_recipe
from graphssl.recipes.base import COMMON
from graphssl.recipes.custom import custom
from graphssl.report import Report
from graphssl.train import check_slots, memory_advice, seeded

SAME_BITS = {"workers", "checkpoint"}  # settings that change no result
PRECISIONS = {None: "32-true", "32-true": "32-true", "bf16-mixed": "bf16-mixed"}


def pretrain(
    dataset: Any,
    method: str | Method | Pretrained = "graphmae",
    *,
    out: str | Path | None = None,
    encoder: str | nn.Module | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str | None = None,
    early_stop: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Pretrained:
    """Pretrains an encoder without labels and returns it with its settings and history.

    Where torchrun has started several processes, each makes this call, they train one model, and it is returned on all.

    Args:
        dataset: a name ("cora", "cora/link"), a PyG Data, Dataset or list of Data, a networkx or DGL graph or a list of
            them, (features, scipy sparse adjacency), an array of images [B, C, H, W], videos [B, T, C, H, W] or point
            clouds [B, P, 3] or (array, labels), a list of SMILES, a .csv of molecules, a .npz, a folder of images or
            videos, a graphssl Graph, Items or Dataset.
        method: a name of ``list_methods()``, a Method object (a copy of it is trained), or a Pretrained to go on from.
        out: folder of the run; None keeps it in memory.
        encoder: a name of ``list_encoders()`` or a module (x, edge_index) -> codes (a copy of it is trained) in place
            of the recipe's backbone.
        epochs: passes over the data; None: the recipe's; 0: an untrained encoder, for comparison.
        batch_size: graphs or items a step, of a set of them; nodes a step of one graph that is learned from in parts
            (see ``loader``, a setting of every recipe: graphssl.recipes.base.common).
        seed: of weights, order and masks; the same seed gives the same bits on the same machine and versions.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: None or "32-true", "bf16-mixed".
        early_stop: None, or "loss" or "rank": ends the run once the epoch's loss, or the effective rank of the codes,
            has not got better for a while ("loss:50": for 50 epochs; "rank:5": for 5 looks of the monitor); no labels.
        resume: goes on with the run in ``out``; starts where there is none; returns it where it has finished.
        overwrite: replaces the run in ``out``.
        progress: a bar with loss and time left, where there is a terminal.
        **settings: keywords of the method's recipe.

    Raises UserError for input or settings that cannot be used, Diverged where the loss stops being finite, OutOfMemory
    where memory does not suffice, LostProcess where another process is gone.
    """
    if out is not None and not isinstance(out, str | Path):
        raise UserError(f"out is {out!r}; give the name of a folder")
    folder = None if out is None else Path(out).expanduser()
    if resume and folder is None:
        raise UserError("resume needs the folder of the run to go on with; give out=... (--out)")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise UserError(f"seed is {seed!r}; choose a whole number from 0 up to, not including, 2**63")
    if precision not in PRECISIONS:
        raise UserError(f"precision is {precision!r}; choose '32-true' or 'bf16-mixed'")
    seed, stop = int(seed), None if early_stop is None else EarlyStop(early_stop)
    given = dict(settings)
    for key, value in (("epochs", epochs), ("batch_size", batch_size), ("encoder", encoder)):
        if value is not None:
            given[key] = value
    with processes.group(_device(device)) as target:
        data = processes.in_turn(lambda: dataset_of(dataset))  # a named one may have to be fetched
        with processes.together():
            mark = fingerprint(data)
            recipe, kept, ancestor = _recipe(method, data.task)
            if encoder is not None and recipe.name == "custom":
                raise UserError("a method object has its encoder already; leave out encoder, or name a method")
            going_on = folder is not None and store.check_folder(folder, resume, overwrite)
            before = store.read_config(folder) if going_on and folder is not None else None
            if before is not None and before["recipe"] == recipe.name:  # what is not given now is what it was
                kept = {**kept, **{k: v for k, v in before["settings"].items() if k in recipe.defaults}}
            spec = Spec.of(data)
            chosen = recipe.settings(spec, {**kept, **given})
            checkpoint = going_on and folder is not None and (folder / store.CHECKPOINT).exists()
            module = None
            if isinstance(chosen.get("encoder"), nn.Module):
                module = copy.deepcopy(chosen["encoder"])
                chosen["encoder"] = copy.deepcopy(module)
            with seeded(seed), memory_advice("building the model"):
                plan = recipe.plan(spec, chosen)
            if plan.tokenizer is not None and data.items is not None:
                data = data.tokenize(plan.tokenizer)
            if ancestor is not None:
                store.load_tensors(plan.method, store.tensors_of(ancestor.method), "the run to go on from")
        plain = {k: v for k, v in chosen.items() if not isinstance(v, nn.Module)}
        weights = [*plan.method.parameters(), *plan.method.buffers()]
        _agreed(
            {"data": mark, "method": recipe.name, "settings": plain, "seed": seed, "precision": precision,
             "early_stop": early_stop, "the shapes of weights": [tuple(tensor.shape) for tensor in weights],
             "the run in the folder": (before, checkpoint)}
        )  # fmt: skip
        processes.copy_first(weights)  # of an object that each process has made
        with processes.together():
            own = recipe.name == "custom"
            labels = label_marks(data, mark) if plan.method.sees_labels else set()
            config: dict[str, Any] = {
                "format": store.FORMAT, "method": type(plan.method).__name__ if own else recipe.name,
                "recipe": recipe.name, "settings": plain,
                "own_encoder": None if module is None else type(module).__name__, "spec": spec.to_json(),
                "fingerprint": mark, "source": str(Path(dataset).expanduser().resolve()) if is_path(dataset) else None,
                "seen": sorted({mark, *(ancestor.config["seen"] if ancestor else ())}),
                "labels_seen": sorted({*(ancestor.config["labels_seen"] if ancestor else ()), *labels}),
                "start": _weights(plan.method),
                "seed": seed, "epochs": plan.epochs, "precision": PRECISIONS[precision],
                "early_stop": early_stop, "device": str(target), "processes": processes.count(),
                "parameters": sum(p.numel() for p in plan.method.parameters()), "versions": versions(),
                "finished": False,
            }  # fmt: skip
            if before is not None and folder is not None:
                _same(before, config, folder)
                if before["finished"]:
                    run = load(folder, method=plan.method if own else None, encoder=module)
                    run.dataset = data
                    run.method.to(target)
                    return run
            if plan.epochs:
                check_slots(plan.method, plan.accumulate)
            slots = processes.count() * plan.accumulate
            with memory_advice(f"moving {data.name} to {target}"):
                plan.method.to(target)
                batches, best = batches_for(data, plan, target, seed, slots)
            if plan.epochs:
                _check_share(data, plan, batches, slots)
            runner.check_memory(plan.method, batches.largest(), target, config["method"])
            trained = [p for p in plan.method.parameters() if p.requires_grad]
            if not trained and plan.epochs:
                raise UserError(
                    f"{config['method']} has no parameters that take a gradient; unfreeze some, or say epochs=0"
                )
            optimizer = plan.optimizer(trained or [torch.nn.Parameter(torch.zeros(1))])

        if folder is not None:
            processes.agree(partial(_begin, folder, config, going_on))
        lines = runner.run(
            plan, batches, optimizer, config, folder=folder, resumed=checkpoint, progress=progress, best=best, stop=stop
        )
        plan.method.eval()
        gate = plan.method.encoder.gate
        if plan.epochs and gate is not None and not gate.weight.any():
            warnings.warn(
                f"{config['method']} trains codes of nodes, not pool='attention', which is still the mean that it "
                "starts as; run.finetune() trains it, or choose a method that compares whole graphs", stacklevel=2,
            )  # fmt: skip
        config["finished"] = True
        if best is not None and best.epoch:
            config["best"] = {"epoch": best.epoch, "validation_auc": best.auc}
        if folder is not None:
            processes.agree(partial(_end, folder, config, plan.method))
    return Pretrained(plan, recipe, config, dataset=data, lines=lines, module=module)


def _agreed(facts: dict[str, Any]) -> None:
    """Raises UserError where processes were not given the same."""
    if found := processes.differing(facts):
        raise UserError(
            f"ranks 0 and {found[0]} differ in {', '.join(found[1])}; give all processes the same data and settings, "
            "and a folder on a disk that they share"
        )


def _check_share(data: Dataset, plan: Plan, batches: Any, slots: int) -> None:
    """Raises UserError where there is less to learn from than a step has batches."""
    several = processes.count()
    if several > 1 and isinstance(batches, Full):
        way_out = "choose loader='neighbor' or another, or train on one process"
        if plan.method.why_whole:
            way_out = f"train on one process, as {plan.method.why_whole}, or choose another method"
        raise UserError(
            f"{data.name!r} is one graph, trained on whole, which {several} processes cannot share; {way_out}"
        )
    if not isinstance(batches, Full) and batches.count < slots:
        raise UserError(
            f"a step has {slots} batches (processes {several}, accumulate {plan.accumulate}), but {data.name!r} has "
            f"{batches.count} {'graphs' if data.task == 'graph' else 'parts'} for them; use fewer processes, or a "
            "smaller accumulate"
        )


def _begin(folder: Path, config: dict[str, Any], going_on: bool) -> None:
    store.open_folder(folder, keep=going_on)
    store.write_json(folder / store.CONFIG, config)


def _end(folder: Path, config: dict[str, Any], method: Method) -> None:
    store.save_weights(folder / store.WEIGHTS, method)
    store.write_json(folder / store.CONFIG, config)
    (folder / store.CHECKPOINT).unlink(missing_ok=True)


def _recipe(method: Any, task: str) -> tuple[Recipe, dict[str, Any], Pretrained | None]:
    """The recipe that ``method`` means and, where it is a run to go on from, that run's settings and itself."""
    if isinstance(method, str):
        return get_recipe(method), {}, None
    if not isinstance(method, Pretrained):
        return custom(method), {}, None
    same = task == method.config["spec"]["task"]
    kept = {k: v for k, v in method.config["settings"].items() if k != "epochs" and (same or k != "batch_size")}
    if method.module is not None:
        kept["encoder"] = method.module
    return method.recipe, kept, method


def _weights(method: Method) -> str:
    """A hash of the weights before the first step."""
    digest = hashlib.sha256()
    for name, tensor in store.tensors_of(method).items():
        digest.update(name.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"device {name!r} is unknown; choose 'auto', 'cpu', 'cuda' or 'cuda:1'") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} has no sparse kernels; choose 'cpu' or 'cuda'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r} asked for, but torch sees {torch.cuda.device_count()} GPUs; choose device='cpu'"
        )
    return device


def _same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuses to go on with other data or settings; warns where bits may differ."""
    words = {"recipe": "method", "own_encoder": "encoder"}
    differ = [
        f"{words.get(k, k)} (was {before.get(k)}, now {now[k]})"
        for k in ("recipe", "own_encoder", "seed", "precision", "early_stop")
        if before.get(k) != now[k]
    ]
    if before["fingerprint"] != now["fingerprint"]:
        differ.append("data")
    if before["recipe"] == now["recipe"]:
        both = sorted((before["settings"].keys() | now["settings"].keys()) - SAME_BITS)
        pairs = {k: (before["settings"].get(k, COMMON.get(k)), now["settings"].get(k)) for k in both}
        named = "own_encoder" if before.get("own_encoder") or now["own_encoder"] else ""
        differ += [
            f"{k} (was {old}, now {new})"
            for k, (old, new) in pairs.items()
            if old != new and not (named and k == "encoder")
        ]
    if not before["finished"] and before.get("processes", 1) != now["processes"]:  # whose steps are others
        differ.append(f"processes (was {before.get('processes', 1)}, now {now['processes']})")
    if not differ and before["finished"] and before["epochs"] != now["epochs"]:
        differ = [f"epochs done ({before['epochs']}, not {now['epochs']}: saved from a checkpoint)"]
    if before.get("finetuned"):
        differ.append("that it was finetuned")
    own = now["recipe"] == "custom" or now["own_encoder"]  # an object made anew has other weights, rightly
    if not differ and not own and before.get("start") != now["start"]:
        differ = ["the weights that it starts from"]
    if differ:
        raise UserError(
            f"cannot go on with the run in {folder}: it differs in {', '.join(differ)}; use its settings or another out"
        )
    moved = [k for k in before["versions"] if before["versions"][k] != now["versions"].get(k)]
    if before["device"] != now["device"]:
        moved.append("device")
    if moved and not before["finished"]:
        warnings.warn(f"going on with other {', '.join(moved)} than the run began with: bits may differ", stacklevel=3)


def evaluate(
    codes: Any, dataset: Any, protocol: str | Sequence[str] | None = None, *, seed: int | None = None
) -> Report:
    """Judges any codes by ``protocol``, one or several (None: all that the data set offers), beside raw features.

    ``codes`` is an array or tensor [N, D] (nodes) or [B, D] (graphs), a Pretrained, an encoder (a graphssl Encoder or a
    module (x, edge_index) -> codes), or graphssl.probes.LinkCodes. An array of codes is not judged by link-mlp-valmsg,
    which embeds two graphs. ``seed`` is the probe's; None: the run's, or 0. Raises UserError where codes and data do
    not fit.
    """
    if isinstance(codes, Pretrained):
        return codes.evaluate(dataset, protocol, seed=seed)
    data = dataset_of(dataset)
    who, notes, pooling = "given codes", (EDGE_EXPOSURE,) if data.task == "link" else (), "mean"
    if isinstance(codes, nn.Module):
        who, pooling = "given encoder", codes.pooling if isinstance(codes, Encoder) else "mean"
        one = isinstance(codes, Encoder) and codes.transductive
        codes = subject_of(_codes_of(codes, data, pooling), data, protocol, one)
    if not isinstance(codes, Tensor | LinkCodes):
        try:
            codes = torch.from_numpy(np.asarray(codes, dtype=np.float32))
        except (TypeError, ValueError) as error:
            came = type(codes).__name__
            raise UserError(f"codes must be an array [rows, width], a Pretrained or an encoder, got {came}") from error
    if isinstance(codes, Tensor):
        codes = codes.detach().float().cpu()
    return judge_all({who: codes}, data, protocol, seed=seed or 0, notes=notes, pooling=pooling)


def _codes_of(module: nn.Module, data: Dataset, pooling: str) -> Callable[[Dataset], Tensor]:
    """How ``module`` makes codes of ``data``, or of a set with its graphs in another form."""
    encoder = module if isinstance(module, Encoder) else Encoder(foreign(module, data.dim))
    if encoder.dim_in != data.dim and encoder.reads_content:
        raise UserError(
            f"the encoder takes content of width {encoder.dim_in}, but {data.name!r} has {data.dim}; use another"
        )

    def codes_of(data: Dataset) -> Tensor:
        with evaluating(encoder):
            return embed(encoder, data, encoder.transform or Transform(), data.level, encoder.device)

    return codes_of
