"""The training loop, as a generator: what to log, probe, save or stop on is the body of your for loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from graphssl import processes
from graphssl.balance import Balance
from graphssl.errors import Diverged, OutOfMemory, UserError
from graphssl.graph import Graph
from graphssl.methods import Method
from graphssl.methods.base import mark_of

LOCK = threading.RLock()
# names that a log line has of its own
RESERVED = {"loss", "epoch", "step", "lr", "seconds", "effective_rank", "spread", "validation_auc"}


def generator_for(seed: int, step: int, slot: int = 0, device: torch.device | str = "cpu") -> Generator:
    """The generator of one batch: the same for the same (seed, step, slot), whatever was drawn before."""
    mixed = np.random.SeedSequence([seed, step, slot]).generate_state(1, np.uint64)[0]
    return Generator(device).manual_seed(int(mixed >> np.uint64(1)))


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Within, the default generators start from ``seed``; afterwards they are as they were."""
    device = torch.device(device)
    # the default generators belong to the whole process, so one thread at a time
    with LOCK, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def memory_advice(what: str) -> Iterator[None]:
    """Turns running out of memory within into OutOfMemory with advice; ``what`` says what was being done."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)):
            raise
        raise OutOfMemory(
            f"memory ran out in {what}; choose a smaller width or batch_size, or precision='bf16-mixed'"
        ) from error


def check_names(method: Method, named: Iterable[str]) -> None:
    """Raises UserError where a loss has a name that a log line has of its own."""
    if taken := RESERVED & {*named}:
        raise UserError(f"{type(method).__name__} calls a loss {min(taken)!r}, which the log needs; rename it")


def check_slots(method: Method, accumulate: int) -> None:
    """Raises UserError where ``method`` cannot take a step of several batches."""
    if accumulate > 1 and any(isinstance(part, Balance) and part.needs_gram for part in method.modules()):
        raise UserError(
            f"accumulate is {accumulate}, but this balance weighs tasks by their gradients in a whole step, and would "
            "see those of one batch of it; leave out accumulate, or choose the balance 'equal' or 'uncertainty'"
        )
    if processes.count() > 1 and not processes.on_gpus() and (norms := processes.batch_norms(method)):
        raise UserError(
            f"{type(method).__name__} has a batch norm ({next(iter(norms))}), and {processes.count()} processes on "
            "CPUs cannot share the statistics of their batches; choose norm='layer' or norm='none', another encoder "
            "('gin' has a batch norm within) or method, or train on one process"
        )


def train(
    method: Method,
    batches: Callable[..., Graph],
    optimizer: Optimizer,
    steps: int,
    *,
    start: int = 0,
    seed: int = 0,
    accumulate: int = 1,
    schedule: Callable[[float], float] | None = None,
    clip: float | None = None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yields (steps done, losses) after each optimizer step from ``start`` to ``steps``; "loss" is what was minimised.

    ``batches(step)`` is the Graph of a step, counted from 0. With ``accumulate`` or several processes a step has so
    many batches on each, and its loss is the mean of theirs: ``batches(step, slot)`` is one of them, and process r of P
    takes slots r, r + P and so on. ``schedule`` maps the fraction of training done to a factor of the learning rate;
    where that is 0, as where a warm-up begins, it is asked half a step later, so that no step is lost. ``clip`` bounds
    the norm of the gradient. Every draw comes from (seed, step, slot), so going on from ``start`` with the weights and
    the optimizer of that step gives the same bits. It ends early after the step in which ``stop`` is true in any
    process.

    Raises Diverged where the total loss is not finite; weights are then those of the step before. What a process
    raises while it makes the gradients of a step is raised in all; LostProcess where one is gone, UserError where
    ``check_slots`` finds fault or weights come to differ between processes.
    """
    check_slots(method, accumulate)
    # Not DistributedDataParallel: it leaves alone the gradients of single tasks, of which a Gram matrix is made; it has
    # no say over how slots are weighed, which must be the same for P processes and for one that accumulates P; and it
    # wants all parameters used, or searches each step for those that are not.
    shared = processes.Step(method.parameters()) if processes.count() > 1 else None
    slots = processes.count() * accumulate
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    for step in range(start, steps):
        factor = (schedule(step / steps) or schedule((step + 0.5) / steps)) if schedule else 1.0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        method.train()
        optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        failure: Exception | None = None
        asked = False
        try:
            with memory_advice(f"step {step + 1} of {type(method).__name__}") if shared else nullcontext():
                for slot in range(processes.rank(), slots, processes.count()):
                    graph = batches(step) if slots == 1 else batches(step, slot)
                    generator = generator_for(seed, step, slot, graph.device)
                    for name, loss in _backward(method, graph, generator, slots, autocast, step, steps).items():
                        losses[name] = losses[name] + loss if name in losses else loss
        except Exception as error:
            if shared is None:
                raise
            failure = error
        if shared is not None:
            losses, asked = shared.end(losses, failure, stop())
        if clip is not None:
            clip_grad_norm_(method.parameters(), clip)
        optimizer.step()
        method.after_step((step + 1) / steps)
        if step == start:
            check_equal(method)
        yield step + 1, losses
        if asked or (shared is None and stop()):
            return


def _backward(
    method: Method, graph: Graph, generator: Generator, slots: int, autocast: Callable[[], AbstractContextManager],
    step: int, steps: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Adds the gradients of a batch that is one of ``slots`` of a step; what it adds to the step's line of the log."""
    device = graph.device
    with seeded(int(torch.randint(2**62, (), generator=generator, device=device)), device):
        with autocast():
            losses = method(graph, generator)
            check_names(method, losses)
            total = method.total(losses)
            beside = method.logged()
            check_names(method, beside)
        if not total.isfinite():
            shown = ", ".join(f"{name} {loss.item():g}" for name, loss in losses.items())
            raise Diverged(
                f"the loss of {type(method).__name__} is not finite at step {step + 1} of {steps} ({shown}); "
                "try a smaller lr, a clip (gradient norm), or check the features for very large values"
            )
        (total / slots).backward()
    return {name: value.detach() / slots for name, value in {**beside, **losses, "loss": total}.items()}


def check_equal(method: Method) -> None:
    """Raises UserError where the processes' weights or buffers have come to differ."""
    if processes.count() > 1 and (
        found := processes.differing({"weights": int(mark_of([*method.parameters(), *method.buffers()]))})
    ):
        raise UserError(
            f"ranks 0 and {found[0]} no longer have the same weights: {type(method).__name__} changes some from its "
            "own batch; change them in after_step, or train on one process"
        )
