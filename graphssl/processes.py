"""What the rest may know of several processes that train one model; on a single one each call gives back its own.

``torchrun`` starts them and ``group`` joins them. Each takes batches of its own, and all hold the same weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from graphssl.errors import Diverged, LostProcess, OutOfMemory, UserError

TIMEOUT = "GRAPHSSL_TIMEOUT"  # seconds that a process waits for the others
NEEDED = ("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ROOM = 256  # numbers a step may log: the buffer has one size, whatever a method logs at the time
KINDS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (UserError, Diverged, OutOfMemory)}

T = TypeVar("T")


class Elsewhere(Exception):
    """Another process has failed; ``settle`` says how."""


class State:
    groups = 0  # begun by this process
    meetings = 0  # of the step at hand


def launched() -> int:
    """How many processes were started together, as the environment says."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"the environment's WORLD_SIZE is {text!r}; start with torchrun, which sets it, or unset it")
    return int(text)


def joined() -> bool:
    """Whether this process belongs to a group now."""
    return dist.is_available() and dist.is_initialized()


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if joined() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if joined() else 0


def first() -> bool:
    """Whether this process writes and speaks for all, also before and after there is a group."""
    return rank() == 0 if joined() else launched() == 1 or os.environ.get("RANK") == "0"


def here() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


@contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Within, the processes that torchrun started are a group; gives this one's device of the kind of ``device``.

    It is one of NCCL on GPUs, of gloo on CPUs. A group that is there already is taken and left as it is. Raises
    UserError for an environment that is not torchrun's or for too few GPUs, LostProcess where one does not come.
    """
    if launched() > 1:
        device = _own(device)
    if launched() == 1 or joined():
        yield device
        return
    if missing := [name for name in NEEDED if name not in os.environ]:
        raise UserError(
            f"the environment's WORLD_SIZE is {launched()}, but it has no {missing[0]}; start with torchrun, or unset "
            "WORLD_SIZE"
        )
    try:
        yield _join(device)
    finally:
        with suppress(RuntimeError):  # of those that are gone
            if joined():
                dist.destroy_process_group()


def _own(device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.index is not None:
        raise UserError(f"device is {str(device)!r}, but each process takes a GPU of its own; say 'cuda' or 'auto'")
    if here > torch.cuda.device_count():
        raise UserError(
            f"{here} processes were started here, but torch sees {torch.cuda.device_count()} GPUs; start as many as "
            "there are GPUs, or choose device='cpu'"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _join(device: torch.device) -> torch.device:
    """Begins a group; the device that Fabric gives this process."""
    from lightning_fabric import Fabric  # takes seconds to import, of which one process alone has no use
    from lightning_fabric.strategies import DDPStrategy

    backend, here, wait = "nccl" if device.type == "cuda" else "gloo", int(os.environ["LOCAL_WORLD_SIZE"]), timeout()
    with _answered(launched()):
        # Fabric takes up a group that has begun. Its own would share the keys of the one before it, in these processes
        # or in those that torchrun had to replace, and find the addresses of sockets long closed.
        store, place, size = next(dist.rendezvous("env://", timeout=wait))  # type: ignore[no-untyped-call]
        State.groups += 1
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"graphssl/{attempt}/{State.groups}", store)
        dist.init_process_group(backend, store=store, rank=place, world_size=size, timeout=wait)
    fabric = Fabric(
        accelerator=device.type, devices=here, num_nodes=launched() // here,
        strategy=DDPStrategy(process_group_backend=backend, timeout=wait),
    )  # fmt: skip
    fabric.launch()
    return fabric.device


def timeout() -> timedelta:
    """How long a process waits for the others: $GRAPHSSL_TIMEOUT seconds, or ten minutes."""
    text = os.environ.get(TIMEOUT, "600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"the environment's {TIMEOUT} is {text!r}; give a number of seconds above 0")
    return timedelta(seconds=seconds)


@contextmanager
def _answered(size: int) -> Iterator[None]:
    """Turns what torch raises where another process does not answer into LostProcess."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # gloo's errors have no class of their own
        why = next(iter(str(error).strip().splitlines()), "no reason given").split(". This is typically")[0]
        raise LostProcess(
            f"one of the {size} processes was lost, or did not answer within {timeout().total_seconds():g} s, which "
            f"{TIMEOUT} sets: {why}"
        ) from error


def on_gpus() -> bool:
    """Whether the group is one of NCCL."""
    return joined() and "nccl" in dist.get_backend()


def _place() -> torch.device:
    """Where the group takes tensors from."""
    return torch.device("cuda", torch.cuda.current_device()) if on_gpus() else torch.device("cpu")


def _each(mine: T) -> list[T]:
    """What each process says, in rank order; for what is small and seldom."""
    said: list[Any] = [None] * count()
    with _answered(count()):
        dist.all_gather_object(said, mine)
    return said


def agree(run: Callable[[], T]) -> T:
    """What ``run`` gives on the first process, for all; what it raises there, all raise."""
    if count() == 1:
        return run()
    said: list[Any] = [None, None]
    failure: Exception | None = None
    if first():
        try:
            said[0] = run()
        except Exception as error:
            failure, said[1] = error, _words(error)
    with _answered(count()):
        dist.broadcast_object_list(said, device=_place())
    if failure is not None:
        raise failure
    if said[1] is not None:
        raise _error(*said[1])
    return said[0]


@contextmanager
def together() -> Iterator[None]:
    """Within, each process works by itself; what one raises, all raise in the end, in the same words."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if count() == 1 or isinstance(error, LostProcess):
            raise
        failure = error
    settle(failure)


def in_turn(run: Callable[[], T]) -> T:
    """What ``run`` gives each process, the first before the others, so that they find what it wrote."""
    if count() == 1:
        return run()
    found: list[T] = []
    for turn in (True, False):
        with together():
            if first() is turn:
                found.append(run())
    return found[0]


def settle(failure: Exception | None) -> None:
    """Raises in all processes what one of them has failed with, of several the first."""
    if count() == 1:
        return
    said = _each(None if failure is None or isinstance(failure, Elsewhere) else _words(failure))
    worst = next((place for place, words in enumerate(said) if words is not None), None)
    if worst is None:
        return
    kind, words = said[worst] or ("", "")
    if failure is not None and worst == rank() and kind not in KINDS:
        raise failure  # a fault of the code: with the way that led there
    where = "" if len(set(said)) == 1 else f"rank {worst} of {count()}: "
    raise _error(kind, where + words) from failure


def _words(error: Exception) -> tuple[str, str]:
    """The kind of an error and what it says."""
    kind = type(error).__name__
    return kind, str(error) if kind in KINDS else f"{kind}: {error}"


def _error(kind: str, words: str) -> Exception:
    return KINDS.get(kind, LostProcess)(words)


def differing(facts: dict[str, Any]) -> tuple[int, list[str]] | None:
    """The first process whose ``facts`` differ from those of process 0, and in which; None where all are the same."""
    if count() == 1:
        return None
    said = _each(facts)
    for place, theirs in enumerate(said):
        if differ := [key for key in {**said[0], **theirs} if theirs.get(key) != said[0].get(key)]:
            return place, differ
    return None


def _meet(number: int) -> list[int]:
    """The ``number`` of each process; raises Elsewhere where one is -1, by which a process says that it has failed."""
    State.meetings += 1
    mine = torch.tensor([number], device=_place())
    all_of_them = [torch.empty_like(mine) for _ in range(count())]
    with _answered(count()):
        dist.all_gather(all_of_them, mine)
    numbers: list[int] = torch.cat(all_of_them).tolist()
    if -1 in numbers:
        raise Elsewhere
    return numbers


def summed(values: Tensor) -> Tensor:
    """The sum over processes of ``values``, of the same shape in each; no gradient flows through it."""
    if count() == 1:
        return values
    _meet(0)
    values = values.detach().clone(memory_format=torch.contiguous_format)
    with _answered(count()):
        dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean over processes of ``values``, of the same shape in each; no gradient flows through it."""
    return values if count() == 1 else summed(values) / count()


def gather(rows: Tensor) -> Tensor:
    """The ``rows`` [M_r, ...] of all processes below one another, in rank order, [sum of M_r, ...].

    What flows back to a process's rows is the sum of what all processes send to them. Where each of P has the same loss
    of the gathered rows, that is P times the loss's gradient, and the mean over processes of the weights' gradients,
    which ``train`` takes, is the gradient of the one loss.
    """
    return rows if count() == 1 else _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        numbers = _meet(len(rows))
        start = sum(numbers[: rank()])
        ctx.own = slice(start, start + len(rows))
        padded = rows.new_zeros(max(numbers), *rows.shape[1:])  # one size is gathered
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in numbers]
        with _answered(count()):
            dist.all_gather(parts, padded)
        return torch.cat([part[:number] for part, number in zip(parts, numbers, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return summed(grad)[ctx.own]


@torch.no_grad()
def copy_first(tensors: Iterable[Tensor]) -> None:
    """Gives ``tensors``, of the same shapes in all processes, the values that they have in the first."""
    if count() == 1:
        return
    _meet(0)
    for tensor in tensors:
        values = tensor.detach().to(_place(), copy=True).contiguous()
        with _answered(count()):
            dist.broadcast(values, 0)
        tensor.copy_(values)


class Step:
    """Makes of the gradients and losses of all processes those of a step, by one exchange.

    Each process has weighed its losses by their share of the step, so that sums are what is asked for. Where no process
    has a gradient of a parameter, it keeps none. The same exchange says whether one has failed, or was asked to stop.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.sizes = [p.numel() for p in self.parameters]
        self.names: tuple[str, ...] | None = None
        self.talks = True  # whether processes exchange something within a step: unknown before the first
        State.meetings = 0

    def end(self, losses: dict[str, Tensor], failure: Exception | None, stop: bool) -> tuple[dict[str, Tensor], bool]:
        """The sums of ``losses`` and whether one was asked to ``stop``; raises in all what one has failed with."""
        if isinstance(failure, LostProcess):
            raise failure
        talked, State.meetings = State.meetings > 0, 0
        if self.talks:  # a process that has failed meets others where they are: within their step, or here
            try:
                if not isinstance(failure, Elsewhere):
                    _meet(0 if failure is None else -1)
            except Elsewhere as told:
                failure = failure or told
            if failure is not None:
                settle(failure)
        self.talks = talked
        names = tuple(losses)
        if failure is None and len(names) > ROOM:
            failure = UserError(f"a step logs {len(names)} numbers, and {ROOM} fit; log fewer")
        flat = self._flat(losses if failure is None else {}, failure, stop)
        with _answered(count()):
            dist.all_reduce(flat)
        *gradients, there, flags, numbers = flat.split([*self.sizes, len(self.sizes), 3, ROOM])
        failed, stopped, renamed = flags.tolist()
        if failed:
            settle(failure)
        if renamed:
            if found := differing({"names": names}):
                raise UserError(
                    f"ranks 0 and {found[0]} have losses of other names in the same step; give them the same names"
                )
            self.names = names
        for parameter, gradient, some in zip(self.parameters, gradients, there.tolist(), strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient.view_as(parameter)) if some else None
        return dict(zip(names, numbers[: len(names)].unbind(), strict=True)), bool(stopped)

    def _flat(self, losses: dict[str, Tensor], failure: Exception | None, stop: bool) -> Tensor:
        """Gradients, which of them there are, three flags and the losses, in one row."""
        none = failure is not None
        gradients = [None if none else p.grad for p in self.parameters]
        like = max((p for p in self.parameters), key=lambda p: p.itemsize)
        dtype = torch.promote_types(like.dtype, torch.float32)
        parts = [
            p.new_zeros(p.numel(), dtype=dtype) if gradient is None else gradient.to(dtype).flatten()
            for p, gradient in zip(self.parameters, gradients, strict=True)
        ]
        flags = [gradient is not None for gradient in gradients]
        flags += [none, stop, self.names is None or tuple(losses) != self.names]
        values = [loss.detach().to(like.device, dtype).flatten() for loss in losses.values()]
        room = like.new_zeros(ROOM - len(values), dtype=dtype)
        return torch.cat([*parts, torch.tensor(flags, dtype=dtype).to(like.device), *values, room])


def batch_norms(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of ``module``, by name, that normalise over a batch."""
    return {name: part for name, part in module.named_modules() if isinstance(part, _BatchNorm)}


@contextmanager
def shared_norms(module: nn.Module) -> Iterator[None]:
    """Within, batch norms in ``module`` take the statistics of all processes' rows; afterwards they are as they were.

    Only over NCCL: torch has no such norm for the CPU.
    """
    plain = batch_norms(module) if count() > 1 else {}
    for name, norm in plain.items():
        _put(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(norm))
    try:
        yield
    finally:
        for name, norm in plain.items():  # the statistics are the same tensors
            _put(module, name, norm)


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(module.get_submodule(above), last, part)
