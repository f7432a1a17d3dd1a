"""The folder of a run: what is in it, how it is written so that nothing is ever half there, how it is read.

config.json        recipe, settings, spec, fingerprint of the data, versions
metrics.jsonl      one line an epoch
checkpoint.safetensors   weights and optimizer while it runs, JSON in the header
model.safetensors  the whole method, once it has finished
head.safetensors   the linear head, where it was finetuned
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from graphssl.errors import UserError

CONFIG, METRICS, WEIGHTS, CHECKPOINT = "config.json", "metrics.jsonl", "model.safetensors", "checkpoint.safetensors"
HEAD = "head.safetensors"
OURS = (CHECKPOINT, WEIGHTS, HEAD, METRICS, CONFIG)
FORMAT = 1
UMASK = os.umask(0)
os.umask(UMASK)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a new name beside ``path``, flushes it to the disk and renames it."""
    new = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        write(new)
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(new, 0o666 & ~UMASK)  # safetensors writes for the owner alone
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, lambda new: new.write_text(json.dumps(content, indent=1) + "\n"))


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of ``module`` by name; a tensor that goes by several names (a shared encoder) appears once."""
    seen: dict[tuple, str] = {}
    state = module.state_dict()
    for name, tensor in state.items():
        seen.setdefault((tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,), name)
    return {name: state[name].detach().cpu().contiguous() for name in seen.values()}


@torch.no_grad()
def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copies ``tensors`` into the state of ``module``; UserError where names or shapes differ."""
    own, expected = module.state_dict(), tensors_of(module)
    if own.keys() >= tensors.keys() >= expected.keys():
        wrong = [name for name in tensors if own[name].shape != tensors[name].shape]
    else:
        wrong = sorted(expected.keys() ^ tensors.keys())
    if wrong:
        raise UserError(
            f"the weights in {where} do not fit this model (first difference: {wrong[0]}); "
            "use the encoder, method and version that made them"
        )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def save_weights(path: Path, module: nn.Module) -> None:
    write_atomically(path, lambda new: save_file(tensors_of(module), new))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file; UserError where it is missing, cut short or something else."""
    if not path.exists():
        raise UserError(f"{path} is missing; was the run interrupted? then go on with resume=True (--resume)")
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is cut short or no safetensors file ({error}); copy it again or rerun") from error


def save_checkpoint(
    folder: Path, method: nn.Module, optimizer: Optimizer, step: int, partial: Mapping[str, float] | None = None,
    best: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
) -> bool:  # fmt: skip
    """Writes weights, optimizer and step in one file; False, and the last one kept, where something is not finite.

    ``partial`` holds the losses summed so far in an epoch that has not ended, ``best`` the weights of the best epoch so
    far and what is known of it.
    """
    if not all(parameter.isfinite().all() for parameter in method.parameters()):
        return False
    tensors = {f"method.{name}": tensor for name, tensor in tensors_of(method).items()}
    numbers: dict[str, Any] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{i}.{key}"] = value.detach().cpu().contiguous().clone()
            else:
                numbers[f"{i}.{key}"] = value
    weights, known = best or ({}, {})
    tensors |= {f"best.{name}": tensor for name, tensor in weights.items()}
    header = {"step": str(step), "optimizer": json.dumps(numbers), "partial": json.dumps(dict(partial or {}))}
    header["best"] = json.dumps(dict(known))
    write_atomically(folder / CHECKPOINT, lambda new: save_file(tensors, new, metadata=header))
    return True


def load_checkpoint(
    folder: Path, method: nn.Module, optimizer: Optimizer | None = None
) -> tuple[int, dict[str, float]]:
    """Restores what ``save_checkpoint`` wrote and returns its step and partial losses; no optimizer: weights alone."""
    path = folder / CHECKPOINT
    tensors, header = read_tensors(path)
    if "step" not in header:
        raise UserError(f"{path} is no checkpoint of graphssl; remove it or choose another folder")
    weights = {name.removeprefix("method."): t for name, t in tensors.items() if name.startswith("method.")}
    load_tensors(method, weights, str(path))
    if optimizer is None:
        return int(header["step"]), {}
    parameters = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    entries: dict[str, Any] = {
        name.removeprefix("optimizer."): t for name, t in tensors.items() if name.startswith("optimizer.")
    }
    entries.update(json.loads(header["optimizer"]))
    for name, value in entries.items():
        i, key = name.split(".", 1)
        parameter, group = parameters[int(i)]
        if isinstance(value, Tensor) and key == "step":
            if group.get("fused") or group.get("capturable"):  # others count their steps on the host
                value = value.to(parameter.device)
        elif isinstance(value, Tensor) and value.shape == parameter.shape:
            # with its strides, as fused optimizers take memory in its order
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        elif isinstance(value, Tensor):
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value
    return int(header["step"]), json.loads(header["partial"])


def load_best(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What ``save_checkpoint`` was given as ``best``."""
    tensors, header = read_tensors(folder / CHECKPOINT)
    weights = {name.removeprefix("best."): t for name, t in tensors.items() if name.startswith("best.")}
    return weights, json.loads(header.get("best", "{}"))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run's folder; UserError where there is none or it is not ours."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of a run (out=... of pretrain, or where you saved it)")
    if not path.exists():
        raise UserError(f"{folder} is not the folder of a run: it has no {CONFIG}; give the out=... of a pretrain")
    damaged = UserError(f"{path} is not the config of a graphssl run, or was damaged; give the folder of a run")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise damaged from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise damaged
    if config["format"] > FORMAT:
        raise UserError(f"{folder} was written by a newer graphssl; update graphssl")
    if any(not isinstance(config.get(key), kind) for key, kind in KEYS.items()):
        raise damaged
    return config


KEYS = {
    "method": str, "recipe": str, "settings": dict, "spec": dict, "fingerprint": str, "seen": list,
    "labels_seen": list, "seed": int, "epochs": int, "precision": str, "device": str, "versions": dict,
    "finished": bool,
}  # fmt: skip


def is_run(folder: Path) -> bool:
    try:
        read_config(folder)
    except UserError:
        return False
    return True


def check_folder(out: Path, resume: bool, overwrite: bool) -> bool:
    """Whether there is a run in ``out`` to go on with; changes nothing.

    Raises UserError where something is there already and neither ``resume`` nor ``overwrite`` says what to do with it,
    or where it is not a run's own folder.
    """
    if resume and overwrite:
        raise UserError("resume and overwrite contradict each other; choose one")
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file; choose a folder for out")
    if not out.exists() or not any(out.iterdir()):
        return False
    if is_run(out):
        if not (resume or overwrite):
            raise UserError(
                f"{out} holds a run; go on with resume=True (--resume), replace it with overwrite=True (--overwrite), "
                "or choose another out"
            )
        return resume
    foreign = [path.name for path in out.iterdir() if not is_left_over(path)]
    if foreign:
        raise UserError(f"{out} holds files that are no run of graphssl ({foreign[0]}, ...); choose another out")
    return False


def open_folder(out: Path, keep: bool) -> None:
    """Makes ``out`` ready: as it is with ``keep``, else without the run before; sweeps up half-written files."""
    out.mkdir(parents=True, exist_ok=True)
    for path in list(out.iterdir()):
        if is_left_over(path):
            path.unlink()
    if keep or not (out / CONFIG).exists():
        return
    write_json(out / CONFIG, {**read_config(out), "finished": False})  # so that a kill in the midst leaves a run begun
    for name in OURS:
        if name != CONFIG:
            (out / name).unlink(missing_ok=True)


def is_left_over(path: Path) -> bool:
    """Whether a kill left this file half written."""
    return path.name.endswith(".new") and any(path.name.startswith(f".{name}.") for name in OURS)


def cut_metrics(folder: Path, step: int) -> list[dict[str, float]]:
    """Keeps, and returns, the lines of metrics.jsonl up to ``step``; the rest was logged after the checkpoint."""
    kept = [line for line in read_metrics(folder) if line["step"] <= step]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    write_atomically(folder / METRICS, lambda new: new.write_text(text))
    return kept


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
    path, lines = folder / METRICS, []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
