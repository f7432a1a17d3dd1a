"""The calls that users make."""

from __future__ import annotations

import copy
import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphssl import store
from graphssl.data import Dataset, Transform
from graphssl.data.loader import Batches, Full
from graphssl.encoder import Encoder, pool
from graphssl.errors import Diverged, OutOfMemory, UserError
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.pretrained import Pretrained, dataset_of, embed, fingerprint, judge_all, load, versions
from graphssl.probes import EDGE_EXPOSURE
from graphssl.recipes import Plan, Recipe, Spec, get_recipe
from graphssl.recipes.custom import custom
from graphssl.report import Report
from graphssl.train import seeded, train

PRECISIONS = {None: "32-true", "32": "32-true", "32-true": "32-true", "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed"}


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
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Pretrained:
    """Pretrains an encoder without labels and returns it with its settings and history.

    Args:
        dataset: a name ("cora", "cora/link"), a PyG Data, Dataset or list of Data, a networkx or DGL graph or a list of
            them, (features, scipy sparse adjacency), a folder or .npz, a graphssl Graph or Dataset.
        method: a name of ``list_methods()``, a Method object, or a Pretrained to go on from.
        out: folder of the run; None keeps it in memory.
        encoder: a name of ``list_encoders()`` or a module (x, edge_index) -> codes in place of the recipe's backbone.
        epochs: passes over the data; None: the recipe's; 0: an untrained encoder, for comparison.
        batch_size: graphs a step, of a graph set.
        seed: of weights, order and masks; the same seed gives the same bits on the same machine and versions.
        device: "auto", "cpu", "cuda", "cuda:1".
        precision: None or "32-true", "bf16-mixed".
        resume: goes on with the run in ``out``; starts where there is none; returns it where it has finished.
        overwrite: replaces the run in ``out``.
        progress: a bar with loss and time left, where there is a terminal.
        **settings: keywords of the method's recipe.

    Raises UserError for input or settings that cannot be used, Diverged where the loss stops being finite, OutOfMemory
    where memory does not suffice.
    """
    data = dataset_of(dataset)
    spec = Spec.of(data)
    recipe, given, weights = _recipe(method, settings)
    for key, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value is not None:
            given[key] = value
    module = None
    if encoder is not None:
        if recipe.name == "custom":
            raise UserError("a method object has its encoder already; leave out encoder, or name a method")
        given["encoder"] = encoder
    chosen = recipe.settings(spec, given)
    if isinstance(chosen.get("encoder"), nn.Module):
        module = copy.deepcopy(chosen["encoder"])
        chosen["encoder"] = copy.deepcopy(module)
    _check_numbers(chosen, data, seed)
    target = _device(device)
    if precision not in PRECISIONS:
        raise UserError(f"precision is {precision!r}; choose '32-true' or 'bf16-mixed'")

    with seeded(seed):
        plan = recipe.plan(spec, chosen)
    if weights is not None:
        store.load_tensors(plan.method, weights, "the run to go on from")
    own_method = recipe.name == "custom"
    config = {
        "format": store.FORMAT, "method": type(plan.method).__name__ if own_method else recipe.name,
        "recipe": recipe.name, "settings": {k: v for k, v in chosen.items() if not isinstance(v, nn.Module)},
        "own_encoder": None if module is None else type(module).__name__, "spec": spec.to_json(),
        "fingerprint": fingerprint(data), "seed": seed, "epochs": plan.epochs, "precision": PRECISIONS[precision],
        "device": str(target), "versions": versions(), "finished": False,
    }  # fmt: skip
    config["parameters"] = sum(p.numel() for p in plan.method.parameters())
    folder = None if out is None else Path(out)
    if resume and folder is None:
        raise UserError("resume needs the folder of the run to go on with; give out=...")
    start_from = None
    if folder is not None and store.open_folder(folder, resume, overwrite):
        before = store.read_config(folder)
        _same(before, config, folder)
        if before["finished"]:
            run = load(folder, method=plan.method if own_method else None, encoder=module)
            run.dataset = data
            run.method.to(target)
            return run
        if (folder / store.CHECKPOINT).exists():
            start_from = folder
    if folder is not None:
        store.write_json(folder / store.CONFIG, config)

    history = _run(plan, data, config, target, folder, start_from, progress)
    plan.method.eval()
    if folder is not None:
        store.save_weights(folder / store.WEIGHTS, plan.method)
        config["finished"] = True
        store.write_json(folder / store.CONFIG, config)
        (folder / store.CHECKPOINT).unlink(missing_ok=True)
    config["finished"] = True
    return Pretrained(plan, recipe, config, dataset=data, history=history, module=module)


def _run(
    plan: Plan, data: Dataset, config: dict[str, Any], device: torch.device, folder: Path | None,
    start_from: Path | None, progress: bool,
) -> list[dict[str, float]]:  # fmt: skip
    """Trains ``plan.method`` in place, logging and saving on the way; returns one line an epoch."""
    from lightning_fabric import Fabric  # takes seconds to import, so only where something is trained

    method, name, seed = plan.method.to(device), config["method"], config["seed"]
    number = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=number, precision=config["precision"])
    optimizer = plan.optimizer([p for p in method.parameters() if p.requires_grad])
    batches: Full | Batches
    if data.task == "graph":
        batches = Batches(data, plan.transform, device, plan.batch_size or 32, seed)
    else:
        batches = Full(data, plan.transform, device)
    steps, start, lines = plan.epochs * batches.per_epoch, 0, []
    if start_from is not None:
        start = store.load_checkpoint(start_from, method, optimizer)
        store.cut_metrics(start_from, start)
        lines = [line for line in store.read_metrics(start_from) if line["step"] <= start]
    elif folder is not None:
        store.cut_metrics(folder, 0)
    _check_memory(method, batches.largest(), device, name)

    sums: dict[str, float] = {}
    log = None if folder is None else open(folder / store.METRICS, "a")  # noqa: SIM115
    bar = tqdm(
        total=plan.epochs, initial=start // batches.per_epoch, desc=f"{name} on {data.name}", unit="epoch",
        disable=not (progress and sys.stderr.isatty()), dynamic_ncols=True,
    )  # fmt: skip
    saved = time.monotonic()
    began = saved - (lines[-1]["seconds"] if lines else 0.0)
    cost, step = 0.0, start
    try:
        with _stop_signals() as stopped, _memory_advice(name, batches.largest()):
            for step, losses in train(
                method, batches, optimizer, steps, start=start, seed=seed, schedule=plan.schedule, clip=plan.clip,
                autocast=fabric.autocast,
            ):  # fmt: skip
                for key, loss in losses.items():
                    sums[key] = sums.get(key, 0.0) + loss.item() / batches.per_epoch
                if step % batches.per_epoch:
                    continue
                line = {"epoch": step // batches.per_epoch, "step": step, "loss": sum(sums.values()), **sums}
                line["lr"] = optimizer.param_groups[0]["lr"]
                line["seconds"] = round(time.monotonic() - began, 3)
                lines.append(line)
                sums = {}
                if log is not None:
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                bar.set_postfix(loss=f"{line['loss']:.4f}", refresh=False)
                bar.update()
                now = time.monotonic()
                # a checkpoint at most every second, and never more than about a fiftieth of the time
                if folder is not None and (stopped() or (now - saved > max(1.0, 50 * cost) and step < steps)):
                    store.save_checkpoint(folder, method, optimizer, step)
                    saved = time.monotonic()
                    cost = saved - now
                if stopped() and step < steps:
                    raise KeyboardInterrupt(_goodbye(folder, step // batches.per_epoch, plan.epochs))
    except Diverged as error:
        kept = folder is not None and (folder / store.CHECKPOINT).exists()
        where = f"; the last good checkpoint is {folder / store.CHECKPOINT}" if kept and folder is not None else ""
        raise Diverged(f"{name} on {data.name}: {error}{where}") from None
    finally:
        bar.close()
        if log is not None:
            log.close()
    if not all(p.isfinite().all() for p in method.state_dict().values() if p.is_floating_point()):
        raise Diverged(f"{name} on {data.name}: weights are not finite after step {step}; try a smaller lr or a clip")
    return lines


def _goodbye(folder: Path | None, epoch: int, epochs: int) -> str:
    if folder is None:
        return f"stopped after epoch {epoch} of {epochs}; nothing was saved, as the run has no out folder"
    return f"stopped after epoch {epoch} of {epochs} and saved; go on with the same call and resume=True (--resume)"


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C (or SIGTERM) into a flag, so that a step is never cut in two; the second acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt("stopped at once; what came after the last checkpoint is lost")
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _recipe(method: Any, settings: dict[str, Any]) -> tuple[Recipe, dict[str, Any], dict[str, Tensor] | None]:
    """The recipe that ``method`` means, the settings given to it, and the weights to start from, if any."""
    if isinstance(method, str):
        return get_recipe(method), dict(settings), None
    if isinstance(method, Pretrained):
        given = {k: v for k, v in method.config["settings"].items() if k != "epochs"}
        if method.module is not None:
            given["encoder"] = method.module
        weights = store.tensors_of(method.method)
        if method.recipe.name == "custom":
            return custom(copy.deepcopy(method.method), method.config["method"]), {**given, **settings}, weights
        return method.recipe, {**given, **settings}, weights
    return custom(method, type(method).__name__), dict(settings), None


def _check_numbers(settings: dict[str, Any], data: Dataset, seed: int) -> None:
    if settings["epochs"] < 0:
        raise UserError(f"epochs is {settings['epochs']}; choose 0 (untrained) or more")
    size = settings.get("batch_size")
    if size is not None and size < 1:
        raise UserError(f"batch_size is {size}; choose 1 or more graphs a step")
    if size is not None and data.task != "graph":
        raise UserError(f"{data.name!r} is one graph, trained on whole; batch_size is for sets of graphs: leave it out")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise UserError(f"seed is {seed!r}; choose a whole number, 0 or more")


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
    differ = [k for k in ("method", "recipe", "own_encoder", "fingerprint", "seed", "precision") if before[k] != now[k]]
    keys = before["settings"].keys() | now["settings"].keys()
    differ += [
        f"{k} (was {before['settings'].get(k)}, now {now['settings'].get(k)})"
        for k in sorted(keys)
        if before["settings"].get(k) != now["settings"].get(k)
    ]
    if differ:
        named = ", ".join({"fingerprint": "data"}.get(k, k) for k in differ)
        raise UserError(
            f"cannot go on with the run in {folder}: it differs in {named}; use its settings or another out"
        )
    moved = [k for k in before["versions"] if before["versions"][k] != now["versions"].get(k)]
    if before["device"] != now["device"]:
        moved.append("device")
    if moved and not before["finished"]:
        warnings.warn(f"going on with other {', '.join(moved)} than the run began with: bits may differ", stacklevel=3)


def _check_memory(method: Method, largest: tuple[int, int], device: torch.device, name: str) -> None:
    """Refuses a step that cannot fit, where the system tells how much is free."""
    free = _free_bytes(device)
    weights = 16 * sum(p.numel() for p in method.parameters())  # with gradient and two moments
    need = weights + method.step_bytes(*largest)
    if free is not None and need > free:
        raise OutOfMemory(
            f"one step of {name} on {largest[0]} nodes needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are "
            "free; choose a smaller width or batch_size, or a method whose memory grows slower than nodes squared"
        )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


@contextmanager
def _memory_advice(name: str, largest: tuple[int, int]) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
        if not short:
            raise
        raise OutOfMemory(
            f"memory ran out in {name} on {largest[0]} nodes and {largest[1]} edges; choose a smaller width or "
            "batch_size, precision='bf16-mixed', or a method whose memory does not grow with the square of the nodes"
        ) from error


def evaluate(codes: Any, dataset: Any, protocol: str | None = None, *, seed: int = 0) -> Report:
    """Judges any codes by ``protocol`` (None: every one that the data set offers), beside raw features.

    ``codes`` is an array or tensor [N, D] (nodes) or [B, D] (graphs), a Pretrained, or an encoder: a graphssl Encoder
    or a module (x, edge_index) -> codes. Raises UserError where codes and data do not fit.
    """
    if isinstance(codes, Pretrained):
        return codes.evaluate(dataset, protocol)
    data = dataset_of(dataset)
    who, notes = "given codes", (EDGE_EXPOSURE,) if data.task == "link" else ()
    if isinstance(codes, nn.Module):
        who, codes = "given encoder", _codes_of(codes, data)
    if not isinstance(codes, Tensor):
        try:
            codes = torch.from_numpy(np.asarray(codes, dtype=np.float32))
        except (TypeError, ValueError) as error:
            came = type(codes).__name__
            raise UserError(f"codes must be an array [rows, width], a Pretrained or an encoder, got {came}") from error
    return judge_all({who: codes.detach().float().cpu()}, data, protocol, seed=seed, notes=notes)


def _codes_of(encoder: nn.Module, data: Dataset) -> Tensor:
    training = encoder.training
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    how = encoder.pooling if isinstance(encoder, Encoder) else "mean"

    def encode(graph: Graph) -> Tensor:
        from graphssl.ops import dense

        return encoder(graph) if isinstance(encoder, Encoder) else encoder(dense(graph.x), graph.edge_index)

    encoder.eval()
    codes = embed(encode, lambda graph, h: pool(graph, h, how), data, Transform(), data.level, device)
    encoder.train(training)
    return codes
