"""Triton kernels for CUDA, without atomics: every output and gradient is bit-equal from run to run.

A row of the pattern is cut into tiles of at most CHUNK entries, longest first. A program takes ROWS tiles and walks
each with LANES lanes: lane l takes entries l, l + LANES, ... and the lanes are merged at the end of the walk. Rows of
several tiles leave partial results in slots, which ``_merge`` puts together in their order.

Letters: R x C pattern of E entries in T tiles, S slots, K rows that were cut, H heads of width D, P = ROWS * LANES.
Widths are constants of a kernel, so that rows are read 16 bytes at a time wherever their width allows it.
Sums are kept in float32, or float64 for float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from graphssl.ops import counter
from graphssl.ops.csr import CSR

CHUNK = 256  # entries in a tile at most
SHARES = 1024  # programs that leave a share of one sum
LOG2E = math.log2(math.e)
# Three tensor-core products of split operands: an error of 2**-22 |q||k|, where "ieee" would leave the tensor cores.
PRECISION = "tf32x3"


# ---- tiles ----


@dataclass(frozen=True)
class Plan:
    """How the rows of a CSR are cut; ``tiles`` [4, T] holds row, start, end and slot (-1: the row is in one piece)."""

    tiles: Tensor
    hubs: Tensor  # rows that were cut, [K]
    first: Tensor  # first slot of each of them, [K + 1]
    slots: int
    mean: float  # entries in a tile

    def blocks(self, width: int, size: int = 2048, widest: int = 2**20) -> dict[str, int]:
        """The block shape for rows of ``width``: ``size`` elements, more lanes where rows are longer on average."""
        features = min(triton.next_power_of_2(max(width, 1)), widest)
        walks = min(max(size // features, 1), 512)
        lanes = min(walks, 16, triton.next_power_of_2(max(math.ceil(self.mean / 2), 1)))
        return {"ROWS": walks // lanes, "LANES": lanes, "BD": features}


def plan(csr: CSR) -> Plan:
    """The plan of ``csr``, made at first use; the device is waited for once."""
    if "_plan" not in csr.__dict__:
        csr.__dict__["_plan"] = _cut(csr)
    return csr.__dict__["_plan"]


def _cut(csr: CSR) -> Plan:
    ptr = csr._index[0]
    pieces = ((csr.degree + CHUNK - 1) // CHUNK).clamp(min=1)
    cut = pieces > 1
    in_slots = pieces * cut
    count, hubs, slots = torch.stack([pieces.sum(), cut.sum(), in_slots.sum()]).tolist()
    row = torch.arange(csr.shape[0], device=ptr.device).repeat_interleave(pieces, output_size=count)
    nth = torch.arange(count, device=ptr.device) - (pieces.cumsum(0) - pieces)[row]
    start = csr.ptr[row] + nth * CHUNK
    end = torch.minimum(start + CHUNK, csr.ptr[row + 1])
    first = torch.cat([in_slots.new_zeros(1), in_slots.cumsum(0)])
    slot = torch.where(cut[row], first[row] + nth, -1)
    order = (start - end).argsort(stable=True)
    hub = torch.searchsorted(cut.cumsum(0), torch.arange(1, hubs + 1, device=ptr.device))
    tiles = torch.stack([row, start, end, slot])[:, order].to(ptr.dtype).contiguous()
    starts = torch.cat([first[hub], first[-1:]])
    return Plan(tiles, hub.to(ptr.dtype), starts.to(ptr.dtype), slots, csr.nnz / max(count, 1))


@triton.jit
def _walk(tiles, T, block, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Row, first entry and end of each lane, [ROWS * LANES] each, and how many steps the longest takes."""
    lane = tl.arange(0, ROWS * LANES)
    tile = block * ROWS + lane // LANES
    row = tl.load(tiles + tile, mask=tile < T, other=0)
    entry = tl.load(tiles + T + tile, mask=tile < T, other=0) + lane % LANES
    end = tl.load(tiles + 2 * T + tile, mask=tile < T, other=0)
    return row.to(tl.int64), entry, end, tl.cdiv(tl.max(end - entry), LANES)


@triton.jit
def _put(out, part, value, tiles, T, block, h, feature, H: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr):
    """Stores ``value`` [ROWS, BD]: whole rows in ``out`` [R, H, D], pieces in their slots of ``part`` [S, H, D]."""
    tile = block * ROWS + tl.arange(0, ROWS)
    slot = tl.load(tiles + 3 * T + tile, mask=tile < T, other=-1).to(tl.int64)
    row = tl.load(tiles + tile, mask=tile < T, other=0).to(tl.int64)
    inside = (feature < D)[None, :]
    tl.store(
        out + (row * H + h)[:, None] * D + feature[None, :], value, mask=((tile < T) & (slot < 0))[:, None] & inside
    )
    if part is not None:
        tl.store(part + (slot * H + h)[:, None] * D + feature[None, :], value, mask=(slot >= 0)[:, None] & inside)


@triton.jit
def _rows(x, row, live, h, feature, H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr):
    """Rows of ``x`` [., H, D] at head ``h``, [P, BD]; zeros where not ``live``."""
    at = (row.to(tl.int64) * H + h)[:, None] * D + feature[None, :]
    return tl.load(x + at, mask=live[:, None] & (feature < D)[None, :], other=0.0).to(ACC)


@triton.jit
def _scalars(x, row, live, h, H: tl.constexpr, ACC: tl.constexpr):
    """Entries of ``x`` [., H] at head ``h``, [P]; zeros where not ``live``."""
    return tl.load(x + row.to(tl.int64) * H + h, mask=live, other=0.0).to(ACC)


@triton.jit
def _lanes_sum(value, ROWS: tl.constexpr, LANES: tl.constexpr):
    """[ROWS * LANES, BD] to [ROWS, BD]."""
    return tl.sum(tl.reshape(value, (ROWS, LANES, value.shape[1])), axis=1)


@triton.jit
def _lanes_softmax(top, total, ROWS: tl.constexpr, LANES: tl.constexpr):
    """Largest score and sum of exp(score - largest) of each row from those of its lanes [ROWS * LANES, BH].

    Also the factor [ROWS * LANES, BH] that takes what a lane has summed to the scale of the row.
    """
    top = tl.reshape(top, (ROWS, LANES, top.shape[1]))
    largest = tl.max(top, axis=1)
    factor = tl.exp(top - _finite(largest)[:, None, :])
    total = tl.sum(tl.reshape(total, (ROWS, LANES, total.shape[1])) * factor, axis=1)
    return largest, total, tl.reshape(factor, (ROWS * LANES, factor.shape[2]))


@triton.jit
def _finite(top):
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit(do_not_specialize=["S", "R", "E"])
def _merge(
    part, stats, part_place, hubs, first, out, out_stats, place, S, R, E,
    H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr, SLOTS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Rows that were cut from their slots: the sum, the largest (with ``place``), or a softmax (with ``stats``)."""
    h = tl.program_id(0) % H
    hub = tl.program_id(0) // H
    feature = tl.program_id(1) * BD + tl.arange(0, BD)
    row = tl.load(hubs + hub).to(tl.int64)
    begin = tl.load(first + hub).to(tl.int64)
    end = tl.load(first + hub + 1).to(tl.int64)
    lane = tl.arange(0, SLOTS)
    if stats is not None:
        top = tl.full((SLOTS,), float("-inf"), ACC)
        for at in range(begin, end, SLOTS):
            slot = at + lane
            top = tl.maximum(top, tl.load(stats + slot * H + h, mask=slot < end, other=float("-inf")))
        largest = tl.max(top, axis=0)
        weights = tl.zeros((SLOTS,), ACC)
    total = tl.zeros((SLOTS, BD), ACC)
    if place is not None:
        total += float("-inf")
        places = tl.zeros((SLOTS, BD), place.dtype.element_ty) + E
    for at in range(begin, end, SLOTS):
        slot = at + lane
        live = slot < end
        if part is not None:
            value = _rows(part, slot, live, h, feature, H, D, ACC)
        if place is not None:
            inside = live[:, None] & (feature < D)[None, :]
            candidate = tl.load(part_place + (slot * H + h)[:, None] * D + feature[None, :], mask=inside, other=0)
            better = inside & ((value > total) | (places == E))
            total = tl.where(better, value, total)
            places = tl.where(better, candidate, places)
        elif stats is not None:
            score = tl.load(stats + slot * H + h, mask=live, other=float("-inf"))
            weight = _scalars(stats + S * H, slot, live, h, H, ACC) * tl.exp(score - _finite(largest))
            weights += weight
            if part is not None:
                total += value * weight[:, None]
        else:
            total += value
    at = (row * H + h) * D + feature
    if place is not None:
        value = tl.max(total, axis=0)
        tl.store(place + at, tl.min(tl.where(total == value[None, :], places, E), axis=0), mask=feature < D)
    else:
        value = tl.sum(total, axis=0)
    if stats is not None:
        weight = tl.sum(weights, axis=0)
        value = value / tl.where(weight > 0, weight, 1.0)
        if tl.program_id(1) == 0:
            tl.store(out_stats + row * H + h, largest)
            tl.store(out_stats + (R.to(tl.int64) + row) * H + h, weight)
    if part is not None:
        tl.store(out + at, value, mask=feature < D)


# ---- sums and maxima of neighbours ----


@triton.jit(do_not_specialize=["T", "E"])
def _gather(
    x, weight, col, tiles, out, place, part, part_place, T, E,
    H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The sum of weight * x[col] over each row, or with ``place`` the largest; without ``col`` entry e takes x[e]."""
    h = tl.program_id(0) % H
    block = tl.program_id(0) // H
    feature = tl.program_id(1) * BD + tl.arange(0, BD)
    _, entry, end, steps = _walk(tiles, T, block, ROWS, LANES)
    total = tl.zeros((ROWS * LANES, BD), ACC)
    if place is not None:
        total += float("-inf")
        places = tl.zeros((ROWS * LANES, BD), place.dtype.element_ty) + E
    for _ in range(steps):
        live = entry < end
        if col is None:
            source = entry
        else:
            source = tl.load(col + entry, mask=live, other=0)
        value = _rows(x, source, live, h, feature, H, D, ACC)
        if weight is not None:
            value *= _scalars(weight, entry, live, h, H, ACC)[:, None]
        if place is not None:
            better = live[:, None] & ((value > total) | (places == E))
            total = tl.where(better, value, total)
            places = tl.where(better, entry[:, None], places)
        else:
            total += value
        entry += LANES
    if place is not None:
        total = tl.reshape(total, (ROWS, LANES, BD))
        value = tl.max(total, axis=1)
        first = tl.min(tl.where(total == value[:, None, :], tl.reshape(places, (ROWS, LANES, BD)), E), axis=1)
        _put(place, part_place, first, tiles, T, block, h, feature, H, D, ROWS)
        value = tl.where(first < E, value, 0.0)
    else:
        value = _lanes_sum(total, ROWS, LANES)
    _put(out, part, value, tiles, T, block, h, feature, H, D, ROWS)


@triton.jit(do_not_specialize=["T"])
def _spread(
    grad, place, x, weight, col, perm, tiles, dx, dweight, part, T,
    H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Over the transpose: dx = sum of weight * grad[col] and dweight = <grad[col], x>; each grad row is read once.

    With ``place``, grad counts only where the entry is the one that the largest value came from.
    """
    h = tl.program_id(0) % H
    block = tl.program_id(0) // H
    feature = tl.program_id(1) * BD + tl.arange(0, BD)
    row, at, end, steps = _walk(tiles, T, block, ROWS, LANES)
    if dweight is not None:
        own = _rows(x, row, at < end, h, feature, H, D, ACC)
    total = tl.zeros((ROWS * LANES, BD), ACC)
    for _ in range(steps):
        live = at < end
        target = tl.load(col + at, mask=live, other=0)
        value = _rows(grad, target, live, h, feature, H, D, ACC)
        entry = tl.load(perm + at, mask=live, other=0)
        if place is not None:
            spot = (target.to(tl.int64) * H + h)[:, None] * D + feature[None, :]
            chosen = tl.load(place + spot, mask=live[:, None] & (feature < D)[None, :], other=-1)
            value = tl.where(chosen == entry[:, None], value, 0.0)
        if dweight is not None:
            tl.store(dweight + entry.to(tl.int64) * H + h, tl.sum(value * own, axis=1), mask=live)
        if weight is not None:
            value *= _scalars(weight, entry, live, h, H, ACC)[:, None]
        total += value
        at += LANES
    _put(dx, part, _lanes_sum(total, ROWS, LANES), tiles, T, block, h, feature, H, D, ROWS)


# ---- softmax over the entries of a row ----


@triton.jit(do_not_specialize=["T", "R", "S"])
def _segment(
    a, b, tiles, out, part, T, R, S,
    H: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Over each row, all heads at once: the sum of a * b [E, H], or without ``b`` the two statistics of softmax."""
    block = tl.program_id(0)
    head = tl.arange(0, BD)
    _, entry, end, steps = _walk(tiles, T, block, ROWS, LANES)
    total = tl.zeros((ROWS * LANES, BD), ACC)
    top = tl.full((ROWS * LANES, BD), float("-inf"), ACC)
    for _ in range(steps):
        value = _rows(a, entry, entry < end, 0, head, 1, H, ACC)
        if b is None:
            value = tl.where((entry < end)[:, None], value, float("-inf"))
            largest = tl.maximum(top, value)
            total = total * tl.exp(top - _finite(largest)) + tl.exp(value - _finite(largest))
            top = largest
        else:
            total += value * _rows(b, entry, entry < end, 0, head, 1, H, ACC)
        entry += LANES
    if b is None:
        largest, total, _ = _lanes_softmax(top, total, ROWS, LANES)
        _put(out, part, largest, tiles, T, block, 0, head, 1, H, ROWS)
        out += R.to(tl.int64) * H
        if part is not None:
            part += S.to(tl.int64) * H
    else:
        total = _lanes_sum(total, ROWS, LANES)
    _put(out, part, total, tiles, T, block, 0, head, 1, H, ROWS)


@triton.jit(do_not_specialize=["T", "R"])
def _entries(
    a, b, rows, tiles, out, T, R,
    H: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """[E, H] from [E, H] and [R, H]: a * (b - row), or without ``b`` exp(a - row[0]) / row[1] from [2, R, H]."""
    head = tl.arange(0, BD)
    row, entry, end, steps = _walk(tiles, T, tl.program_id(0), ROWS, LANES)
    first = _rows(rows, row, entry < end, 0, head, 1, H, ACC)
    if b is None:
        second = _rows(rows + R.to(tl.int64) * H, row, entry < end, 0, head, 1, H, ACC)
    for _ in range(steps):
        live = entry < end
        value = _rows(a, entry, live, 0, head, 1, H, ACC)
        if b is None:
            value = tl.exp(tl.where(live[:, None], value - first, 0.0)) / tl.where(second > 0, second, 1.0)
        else:
            value *= _rows(b, entry, live, 0, head, 1, H, ACC) - first
        inside = live[:, None] & (head < H)[None, :]
        tl.store(out + entry.to(tl.int64)[:, None] * H + head[None, :], value, mask=inside)
        entry += LANES


# ---- attention ----
# MODE  query           key               value                    extra
# gat   target [R, H]   source [C, H]     x [C, H, D]              -
# v2    target [R, H, D], key and value are both x [C, H, D]       attention [H, D]
# qkv   query [R, H, D] key [C, H, D]     value [C, H, V]          bias [E, H] or None


@triton.jit
def _leaky(z, SLOPE: tl.constexpr):
    return _bent(z, z, SLOPE)


@triton.jit
def _bent(grad, z, SLOPE: tl.constexpr):
    """``grad`` times the slope of the leaky relu at ``z``."""
    return tl.where(z > 0, grad, grad * SLOPE)


@triton.jit
def _side(x, row, live, h, feature, MODE: tl.constexpr, H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr):
    """What a node brings to the score: [P] in ``gat``, else [P, BD]."""
    if MODE == "gat":
        return _scalars(x, row, live, h, H, ACC)
    else:
        return _rows(x, row, live, h, feature, H, D, ACC)


@triton.jit
def _score(
    query, key, extra, direction, entry, live, h,
    MODE: tl.constexpr, FACTOR: tl.constexpr, H: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Scores of the entries, [P]; -inf where not ``live``. FACTOR is the slope, or the scale of ``qkv``."""
    if MODE == "qkv":
        score = tl.sum(query * key, axis=1) * FACTOR
        if extra is not None:
            score += _scalars(extra, entry, live, h, H, ACC)
    else:
        score = _leaky(query + key, FACTOR)
        if MODE == "v2":
            score = tl.sum(score * direction[None, :], axis=1)
    return tl.where(live, score, float("-inf"))


@triton.jit
def _kept(entry, h, seed, LIMIT: tl.constexpr, BOOST: tl.constexpr, H: tl.constexpr, ACC: tl.constexpr):
    """What dropout multiplies the weights by; the bits of ``counter.draws``."""
    count = entry.to(tl.int64) * H + h
    z = (count // 2 + 1).to(tl.uint64) * 0x9E3779B97F4A7C15 + seed
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    draw = (tl.where(count % 2 == 0, z >> 40, z >> 8) & 0xFFFFFF).to(tl.int32)
    return tl.where(draw < LIMIT, 0.0, tl.full(draw.shape, BOOST, ACC))


@triton.jit
def _direction(extra, h, feature, MODE: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr):
    """The attention vector [BD] of ``v2``; nothing in the other modes."""
    if MODE == "v2":
        return tl.load(extra + h * D + feature, mask=feature < D, other=0.0).to(ACC)
    else:
        return 0


@triton.jit(do_not_specialize=["T", "R", "S", "seed"])
def _attend(
    query, key, value, extra, col, tiles, out, stats, part, part_stats, T, R, S, seed,
    MODE: tl.constexpr, FACTOR: tl.constexpr, LIMIT: tl.constexpr, BOOST: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, V: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Attention in one gather; ``stats`` [2, R, H] are the largest score and the sum of exp(score - largest)."""
    h = tl.program_id(0) % H
    block = tl.program_id(0) // H
    feature = tl.arange(0, BD)
    wide = tl.arange(0, BV)
    row, entry, end, steps = _walk(tiles, T, block, ROWS, LANES)
    own = _side(query, row, entry < end, h, feature, MODE, H, D, ACC)
    direction = _direction(extra, h, feature, MODE, D, ACC)
    top = tl.full((ROWS * LANES,), float("-inf"), ACC)
    total = tl.zeros((ROWS * LANES,), ACC)
    summed = tl.zeros((ROWS * LANES, BV), ACC)
    for _ in range(steps):
        live = entry < end
        source = tl.load(col + entry, mask=live, other=0)
        other = _side(key, source, live, h, feature, MODE, H, D, ACC)
        score = _score(own, other, extra, direction, entry, live, h, MODE, FACTOR, H, ACC)
        largest = tl.maximum(top, score)
        fade = tl.exp(top - _finite(largest))
        weight = tl.exp(score - _finite(largest))
        total = total * fade + weight
        top = largest
        if BOOST != 1:
            weight *= _kept(entry, h, seed, LIMIT, BOOST, H, ACC)
        if MODE == "v2":
            what = other
        else:
            what = _rows(value, source, live, h, wide, H, V, ACC)
        summed = summed * fade[:, None] + weight[:, None] * what
        entry += LANES
    largest, total, factor = _lanes_softmax(top[:, None], total[:, None], ROWS, LANES)
    summed = _lanes_sum(summed * factor, ROWS, LANES) / tl.where(total > 0, total, 1.0)
    one = tl.arange(0, 1)
    _put(out, part, summed, tiles, T, block, h, wide, H, V, ROWS)
    _put(stats, part_stats, largest, tiles, T, block, h, one, H, 1, ROWS)
    stats += R.to(tl.int64) * H
    if part_stats is not None:
        part_stats += S.to(tl.int64) * H
    _put(stats, part_stats, total, tiles, T, block, h, one, H, 1, ROWS)


@triton.jit(do_not_specialize=["T", "R", "seed"])
def _attend_back(
    grad, delta, stats, query, key, value, extra, col, perm, tiles,
    dkey, dvalue, dscore, part_key, part_value, T, R, seed,
    MODE: tl.constexpr, FACTOR: tl.constexpr, LIMIT: tl.constexpr, BOOST: tl.constexpr,
    H: tl.constexpr, D: tl.constexpr, V: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Over the transpose: the gradients of key and value, and of each score in its own place of ``dscore`` [E, H].

    In ``gat``, ``dscore`` is that of the sum before the leaky relu; in ``v2``, ``dvalue`` is all of dx.
    """
    h = tl.program_id(0) % H
    block = tl.program_id(0) // H
    feature = tl.arange(0, BD)
    wide = tl.arange(0, BV)
    row, at, end, steps = _walk(tiles, T, block, ROWS, LANES)
    own = _side(key, row, at < end, h, feature, MODE, H, D, ACC)
    direction = _direction(extra, h, feature, MODE, D, ACC)
    if MODE == "v2":
        what = own
    else:
        what = _rows(value, row, at < end, h, wide, H, V, ACC)
    to_key = tl.zeros_like(own)
    to_value = tl.zeros((ROWS * LANES, BV), ACC)
    for _ in range(steps):
        live = at < end
        target = tl.load(col + at, mask=live, other=0)
        entry = tl.load(perm + at, mask=live, other=0)
        other = _side(query, target, live, h, feature, MODE, H, D, ACC)
        score = _score(other, own, extra, direction, entry, live, h, MODE, FACTOR, H, ACC)
        largest = _scalars(stats, target, live, h, H, ACC)
        total = _scalars(stats + R.to(tl.int64) * H, target, live, h, H, ACC)
        weight = tl.exp(score - _finite(largest)) / tl.where(total > 0, total, 1.0)
        incoming = _rows(grad, target, live, h, wide, H, V, ACC)
        through = tl.sum(incoming * what, axis=1)
        passed = weight
        if BOOST != 1:
            kept = _kept(entry, h, seed, LIMIT, BOOST, H, ACC)
            through *= kept
            passed *= kept
        to_score = weight * (through - _scalars(delta, target, live, h, H, ACC))
        to_value += passed[:, None] * incoming
        if MODE == "qkv":
            to_key += (to_score * FACTOR)[:, None] * other
        elif MODE == "v2":
            to_value += _bent(to_score[:, None] * direction[None, :], own + other, FACTOR)
        else:
            to_score = _bent(to_score, own + other, FACTOR)
            to_key += to_score
        tl.store(dscore + entry.to(tl.int64) * H + h, to_score, mask=live)
        at += LANES
    _put(dvalue, part_value, _lanes_sum(to_value, ROWS, LANES), tiles, T, block, h, wide, H, V, ROWS)
    if MODE == "qkv":
        _put(dkey, part_key, _lanes_sum(to_key, ROWS, LANES), tiles, T, block, h, feature, H, D, ROWS)
    elif MODE == "gat":
        summed = _lanes_sum(to_key[:, None], ROWS, LANES)
        _put(dkey, part_key, summed, tiles, T, block, h, tl.arange(0, 1), H, 1, ROWS)


@triton.jit(do_not_specialize=["T"])
def _gatv2_target(
    x, target, attention, dscore, col, tiles, dtarget, part, shares, T,
    SLOPE: tl.constexpr, H: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The gradient of ``target``, and a share [H, D] of that of ``attention`` from each of SHARES programs."""
    h = tl.program_id(0) % H
    share = tl.program_id(0) // H
    feature = tl.arange(0, BD)
    direction = _direction(attention, h, feature, "v2", D, ACC)
    to_attention = tl.zeros((ROWS * LANES, BD), ACC)
    for block in range(share, tl.cdiv(T, ROWS), tl.num_programs(0) // H):
        row, entry, end, steps = _walk(tiles, T, block, ROWS, LANES)
        own = _rows(target, row, entry < end, h, feature, H, D, ACC)
        total = tl.zeros((ROWS * LANES, BD), ACC)
        for _ in range(steps):
            live = entry < end
            source = tl.load(col + entry, mask=live, other=0)
            z = own + _rows(x, source, live, h, feature, H, D, ACC)
            to_score = _scalars(dscore, entry, live, h, H, ACC)[:, None]
            total += _bent(to_score, z, SLOPE)
            to_attention += to_score * _leaky(z, SLOPE)
            entry += LANES
        summed = _lanes_sum(total, ROWS, LANES) * direction[None, :]
        _put(dtarget, part, summed, tiles, T, block, h, feature, H, D, ROWS)
    at = (share * H + h) * D + feature
    tl.store(shares + at, tl.sum(to_attention, axis=0), mask=feature < D)


# ---- losses ----


@triton.jit(do_not_specialize=["M"])
def _row_dot(a, b, out, M, D: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr):
    """<a_i, b_i> of [M, D] and [M, D]."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    feature = tl.arange(0, BD)
    product = _rows(a, row, row < M, 0, feature, 1, D, ACC) * _rows(b, row, row < M, 0, feature, 1, D, ACC)
    tl.store(out + row, tl.sum(product, axis=1), mask=row < M)


@triton.jit
def _power(x, A: tl.constexpr):
    if A == 0:
        return tl.full(x.shape, 1.0, x.dtype)
    elif A == 1:
        return x
    elif A == 2:
        return x * x
    elif A == 3:
        return x * x * x
    else:
        return tl.exp2(tl.log2(x) * A)


@triton.jit(do_not_specialize=["M"])
def _cosine(
    pred, target, grad, out, dtarget, M,
    ALPHA: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The loss of each row in ``out`` [M]; with ``grad`` [M], its gradients in ``out`` and ``dtarget`` [M, D]."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    feature = tl.arange(0, BD)
    live = row < M
    a = _rows(pred, row, live, 0, feature, 1, D, ACC)
    b = _rows(target, row, live, 0, feature, 1, D, ACC)
    a_norm = tl.sqrt(tl.sum(a * a, axis=1))
    b_norm = tl.sqrt(tl.sum(b * b, axis=1))
    a_floor = tl.maximum(a_norm, 1e-12)
    b_floor = tl.maximum(b_norm, 1e-12)
    cosine = tl.sum(a * b, axis=1) / (a_floor * b_floor)
    gap = tl.maximum(1 - cosine, 0.0)
    if grad is None:
        tl.store(out + row, _power(gap, ALPHA), mask=live)
    else:
        slope = -ALPHA * _power(gap, ALPHA - 1) * tl.load(grad + row, mask=live, other=0.0).to(ACC)
        slope = tl.where(cosine <= 1, slope, 0.0)
        a = a / a_floor[:, None]
        b = b / b_floor[:, None]
        at = row.to(tl.int64)[:, None] * D + feature[None, :]
        inside = live[:, None] & (feature < D)[None, :]
        bend = tl.where(a_norm >= 1e-12, cosine, 0.0)[:, None]  # below, the clamp holds the norm
        tl.store(out + at, (slope / a_floor)[:, None] * (b - bend * a), mask=inside)
        if dtarget is not None:
            bend = tl.where(b_norm >= 1e-12, cosine, 0.0)[:, None]
            tl.store(dtarget + at, (slope / b_floor)[:, None] * (a - bend * b), mask=inside)


@triton.jit
def _tile(x, row, count, at, D: tl.constexpr, BK: tl.constexpr):
    """Columns from ``at`` on of rows of ``x`` [count, D], [B, BK]."""
    feature = at + tl.arange(0, BK)
    inside = (row < count)[:, None] & (feature < D)[None, :]
    return tl.load(x + row.to(tl.int64)[:, None] * D + feature[None, :], mask=inside, other=0.0)


@triton.jit
def _logits(
    x, y, mine, their, N, M,
    SCALE: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr, B: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """SCALE times the products of rows of ``x`` [N, D] and ``y`` [M, D], [B, B]."""
    total = tl.zeros((B, B), ACC)
    for at in range(0, D, BK):
        own, other = _tile(x, mine, N, at, D, BK), _tile(y, their, M, at, D, BK)
        total = tl.dot(own, tl.trans(other), acc=total, input_precision=PRECISION, out_dtype=ACC)
    return total * SCALE


@triton.jit(do_not_specialize=["N", "M", "skip"])
def _flash(
    q, k, out, N, M, skip,
    SCALE: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr, B: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """log2 of the sum over j of 2**(SCALE q_i.k_j), [N], without j = i + skip."""
    row = tl.program_id(0) * B + tl.arange(0, B)
    top = tl.full((B,), float("-inf"), ACC)
    total = tl.zeros((B,), ACC)
    for start in range(0, M, B):
        column = start + tl.arange(0, B)
        counts = (column < M)[None, :]
        if skip is not None:
            counts = counts & (column[None, :] != row[:, None] + skip)
        logits = _logits(q, k, row, column, N, M, SCALE, D, ACC, B, BK, PRECISION)
        logits = tl.where(counts, logits, float("-inf"))
        largest = tl.maximum(top, tl.max(logits, axis=1))
        weights = tl.exp2(logits - _finite(largest)[:, None])
        total = total * tl.exp2(top - _finite(largest)) + tl.sum(weights, axis=1)
        top = largest
    tl.store(out + row, _finite(top) + tl.log2(total), mask=row < N)


@triton.jit(do_not_specialize=["N", "M", "skip"])
def _flash_back(
    x, y, lse, grad, out, N, M, skip,
    OF_ROWS: tl.constexpr, SCALE: tl.constexpr, FACTOR: tl.constexpr, D: tl.constexpr, ACC: tl.constexpr,
    B: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BD columns of the gradient of ``x`` [N, D] from all of ``y`` [M, D]; OF_ROWS tells whether x, or else y, is q."""
    mine = tl.program_id(0) * B + tl.arange(0, B)
    first = tl.program_id(1) * BD
    total = tl.zeros((B, BD), ACC)
    for start in range(0, M, B):
        their = start + tl.arange(0, B)
        counts = (mine < N)[:, None] & (their < M)[None, :]
        if OF_ROWS:
            level = tl.load(lse + mine, mask=mine < N, other=0.0)[:, None]
            pull = tl.load(grad + mine, mask=mine < N, other=0.0)[:, None]
            if skip is not None:
                counts = counts & (their[None, :] != mine[:, None] + skip)
        else:
            level = tl.load(lse + their, mask=their < M, other=0.0)[None, :]
            pull = tl.load(grad + their, mask=their < M, other=0.0)[None, :]
            if skip is not None:
                counts = counts & (mine[:, None] != their[None, :] + skip)
        logits = _logits(x, y, mine, their, N, M, SCALE, D, ACC, B, BK, PRECISION)
        weights = tl.where(counts, tl.exp2(logits - level) * pull, 0.0)
        other = _tile(y, their, M, first, D, BD)
        total = tl.dot(weights.to(other.dtype), other, acc=total, input_precision=PRECISION, out_dtype=ACC)
    feature = first + tl.arange(0, BD)
    inside = (mine < N)[:, None] & (feature < D)[None, :]
    tl.store(out + mine.to(tl.int64)[:, None] * D + feature[None, :], total * FACTOR, mask=inside)


# ---- calls ----


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, num_warps: int = 4, **constants: Any) -> None:
    """Runs ``kernel``, on contiguous copies where need be and on the device of its first tensor."""
    args = tuple(a.contiguous() if isinstance(a, Tensor) else a for a in args)
    if all(grid):
        with torch.cuda.device_of(next(a for a in args if isinstance(a, Tensor))):
            kernel[grid](*args, **constants, num_warps=num_warps, enable_fp_fusion=True)  # 3.10 changes the default


def _acc(*tensors: Tensor | None) -> tuple[torch.dtype, tl.dtype]:
    """The type that sums are kept in, as torch and as Triton call it."""
    wide = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return (torch.float64, tl.float64) if wide else (torch.float32, tl.float32)


def _part(cuts: Plan, like: Tensor, dtype: torch.dtype, H: int, D: int) -> Tensor | None:
    return like.new_empty(cuts.slots, H, D, dtype=dtype) if cuts.slots else None


def _merged(
    cuts: Plan, acc: tl.dtype, H: int, D: int, part: Tensor | None, out: Tensor | None, *,
    part_stats: Tensor | None = None, stats: Tensor | None = None,
    part_place: Tensor | None = None, place: Tensor | None = None, R: int = 0, E: int = 0,
) -> None:  # fmt: skip
    """Fills the rows that were cut, of ``out`` [R, H, D] and its companions, from their slots."""
    if cuts.slots:
        BD = min(triton.next_power_of_2(max(D, 1)), 128)
        _launch(
            _merge, (len(cuts.hubs) * H, triton.cdiv(D, BD)), part, part_stats, part_place, cuts.hubs, cuts.first, out,
            stats, place, cuts.slots, R, E, H=H, D=D, ACC=acc, SLOTS=min(64, 1024 // BD), BD=BD,
        )  # fmt: skip


def _gathered(csr: CSR, x: Tensor, weight: Tensor | None, col: Tensor | None, places: bool = False):
    """Sums, or maxima and their ``places``, of ``x`` [C, H, D] at ``col``, or at each row's own entries; [R, H, D]."""
    cuts, R, E, (_, H, D) = plan(csr), csr.shape[0], csr.nnz, x.shape
    dtype, acc = _acc(x, weight)
    out = x.new_empty(R, H, D)
    place = torch.empty_like(out, dtype=csr._index[1].dtype) if places else None
    if weight is None:
        H, D = 1, H * D
    part = _part(cuts, x, dtype, H, D)
    part_place = None if place is None else _part(cuts, x, place.dtype, H, D)
    block, T = cuts.blocks(D, widest=128), cuts.tiles.size(1)
    _launch(
        _gather, (triton.cdiv(T, block["ROWS"]) * H, triton.cdiv(D, block["BD"])),
        x, weight, col, cuts.tiles, out, place, part, part_place, T, E, H=H, D=D, ACC=acc, **block,
    )  # fmt: skip
    _merged(cuts, acc, H, D, part, out, part_place=part_place, place=place, E=E)
    return out, place


def _spread_back(csr: CSR, grad: Tensor, place: Tensor | None, x: Tensor, weight: Tensor | None, need_weight: bool):
    back, (_, H, D) = csr.transpose, x.shape
    cuts = plan(back)
    dtype, acc = _acc(grad, x, weight)
    dx, dweight = torch.empty_like(x, memory_format=torch.contiguous_format), None
    if need_weight and weight is not None:
        dweight = weight.new_empty(csr.nnz, H)
    elif weight is None:
        H, D = 1, H * D
    part = _part(cuts, x, dtype, H, D)
    block, T = cuts.blocks(D, widest=128 if dweight is None else 2**20), cuts.tiles.size(1)
    _launch(
        _spread, (triton.cdiv(T, block["ROWS"]) * H, triton.cdiv(D, block["BD"])),
        grad, place, x, weight, back._index[1], back._narrow_perm, cuts.tiles, dx, dweight, part, T,
        H=H, D=D, ACC=acc, **block,
    )  # fmt: skip
    _merged(cuts, acc, H, D, part, dx)
    return dx, dweight


def spmm(csr: CSR, x: Tensor, weight: Tensor | None) -> Tensor:
    """``x`` [C, H, D] and ``weight`` [E, H] to [R, H, D]."""
    return _gathered(csr, x, weight, csr._index[1])[0]


def spmm_back(
    csr: CSR, grad: Tensor, x: Tensor, weight: Tensor | None, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to ``x`` [C, H, D] and ``weight`` [E, H]."""
    return _spread_back(csr, grad, None, x, weight, need_weight)


def spmm_max(csr: CSR, x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest weighted ``x`` [C, H, D] of each row and the first entry that has it, both [R, H, D]."""
    return _gathered(csr, x, weight, csr._index[1], places=True)


def spmm_max_back(
    csr: CSR, grad: Tensor, place: Tensor, x: Tensor, weight: Tensor | None, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to ``x`` [C, H, D] and ``weight`` [E, H]."""
    return _spread_back(csr, grad, place, x, weight, need_weight)


def softmax(csr: CSR, scores: Tensor) -> Tensor:
    """``scores`` [E, H] to weights [E, H]."""
    cuts, R, H = plan(csr), csr.shape[0], scores.size(1)
    dtype, acc = _acc(scores)
    stats, part = scores.new_empty(2, R, H, dtype=dtype), None
    if cuts.slots:
        part = scores.new_empty(2, cuts.slots, H, dtype=dtype)
    _segments(cuts, acc, scores, None, stats, part, R)
    _merged(cuts, acc, H, 1, None, None, part_stats=part, stats=stats, R=R)
    return _mapped(cuts, acc, scores, None, stats, R)


def softmax_back(csr: CSR, weights: Tensor, grad: Tensor) -> Tensor:
    """Gradient to the scores [E, H]."""
    cuts, R, H = plan(csr), csr.shape[0], weights.size(1)
    dtype, acc = _acc(weights)
    delta, part = weights.new_empty(R, H, dtype=dtype), _part(cuts, weights, dtype, 1, H)
    _segments(cuts, acc, weights, grad, delta, part, R)
    _merged(cuts, acc, 1, H, part, delta)
    return _mapped(cuts, acc, weights, grad, delta, R)


def _segments(cuts: Plan, acc: tl.dtype, a: Tensor, b: Tensor | None, out: Tensor, part: Tensor | None, R: int) -> None:
    block, T = cuts.blocks(a.size(1)), cuts.tiles.size(1)
    grid = (triton.cdiv(T, block["ROWS"]),)
    _launch(_segment, grid, a, b, cuts.tiles, out, part, T, R, cuts.slots, H=a.size(1), ACC=acc, **block)


def _mapped(cuts: Plan, acc: tl.dtype, a: Tensor, b: Tensor | None, rows: Tensor, R: int) -> Tensor:
    block, T = cuts.blocks(a.size(1)), cuts.tiles.size(1)
    out = torch.empty_like(a, memory_format=torch.contiguous_format)
    _launch(
        _entries, (triton.cdiv(T, block["ROWS"]),), a, b, rows, cuts.tiles, out, T, R, H=a.size(1), ACC=acc, **block
    )
    return out


def gat(csr: CSR, x: Tensor, source: Tensor, target: Tensor, slope: float, p: float, seed: Tensor | int):
    """``x`` [C, H, D], ``source`` [C, H] and ``target`` [R, H] to [R, H, D] and statistics [2, R, H] of the scores."""
    return _attended("gat", csr, target, source, x, None, slope, p, seed)


def gat_back(csr: CSR, grad, out, stats, x, source, target, slope: float, p: float, seed: Tensor | int):
    """Gradients to ``x``, ``source`` and ``target``."""
    dsource, dx, dscore = _attended_back("gat", csr, grad, out, stats, target, source, x, None, slope, p, seed)
    return dx, dsource, _gathered(csr, dscore[:, None], None, None)[0][:, 0].to(target.dtype)


def gatv2(csr: CSR, x: Tensor, target: Tensor, attention: Tensor, slope: float, p: float, seed: Tensor | int):
    """``x`` [C, H, D], ``target`` [R, H, D], ``attention`` [H, D] to [R, H, D] and statistics [2, R, H] of scores."""
    return _attended("v2", csr, target, x, x, attention, slope, p, seed)


def gatv2_back(csr: CSR, grad, out, stats, x, target, attention, slope: float, p: float, seed: Tensor | int):
    """Gradients to ``x``, ``target`` and ``attention``."""
    _, dx, dscore = _attended_back("v2", csr, grad, out, stats, target, x, x, attention, slope, p, seed)
    cuts, (_, H, D) = plan(csr), x.shape
    dtype, acc = _acc(x, target, attention)
    dtarget, part = target.new_empty(target.shape), _part(cuts, x, dtype, H, D)
    block, T = cuts.blocks(D), cuts.tiles.size(1)
    count = max(min(triton.cdiv(T, block["ROWS"]), SHARES), 1)
    shares = x.new_empty(count, H, D, dtype=dtype)
    _launch(
        _gatv2_target, (count * H,), x, target, attention, dscore, csr._index[1], cuts.tiles, dtarget, part, shares, T,
        SLOPE=slope, H=H, D=D, ACC=acc, **block,
    )  # fmt: skip
    _merged(cuts, acc, H, D, part, dtarget)
    return dx, dtarget, _ordered_sum(shares, acc).to(attention.dtype)


def _ordered_sum(shares: Tensor, acc: tl.dtype) -> Tensor:
    """[n, H, D] to [H, D], in an order that no device chooses."""
    count, H, D = shares.shape
    ends = torch.arange(2, device=shares.device) * count
    out = torch.empty_like(shares[0])
    _merged(Plan(ends, ends[:1], ends, count, 0), acc, H, D, shares, out)
    return out


def qkv(csr: CSR, query, key, value, bias: Tensor | None, scale: float, p: float, seed: Tensor | int):
    """``query`` [R, H, K], ``key`` [C, H, K], ``value`` [C, H, D], ``bias`` [E, H] to [R, H, D] and statistics."""
    return _attended("qkv", csr, query, key, value, bias, scale, p, seed)


def qkv_back(csr: CSR, grad, out, stats, query, key, value, bias, scale: float, p: float, seed: Tensor | int):
    """Gradients to ``query``, ``key``, ``value`` and ``bias``."""
    dkey, dvalue, dscore = _attended_back("qkv", csr, grad, out, stats, query, key, value, bias, scale, p, seed)
    dquery = _gathered(csr, key, dscore * scale, csr._index[1])[0].to(query.dtype)
    return dquery, dkey, dvalue, None if bias is None else dscore.to(bias.dtype)


def _shape(cuts: Plan, mode: str, factor: float, p: float, query: Tensor, value: Tensor, size: int) -> dict[str, Any]:
    """What the attention kernels have as constants."""
    H, D, V = value.size(1), 1 if mode == "gat" else query.size(-1), value.size(-1)
    block = cuts.blocks(max(D, V), size)
    BD, BV = (triton.next_power_of_2(max(n, 1)) for n in (D, V))
    drop = {"LIMIT": counter.threshold(p), "BOOST": (1 / (1 - p) if p < 1 else 0.0) if p > 0 else 1.0}
    return {"MODE": mode, "FACTOR": factor, **drop, "H": H, "D": D, "V": V, **block, "BD": BD, "BV": BV}


def _attended(mode: str, csr: CSR, query, key, value, extra, factor: float, p: float, seed: Tensor | int):
    cuts, R, H, V = plan(csr), csr.shape[0], value.size(1), value.size(2)
    dtype, acc = _acc(query, key, value, extra)
    out, stats = value.new_empty(R, H, V), value.new_empty(2, R, H, dtype=dtype)
    part, part_stats = _part(cuts, value, dtype, H, V), None
    if cuts.slots:
        part_stats = stats.new_empty(2, cuts.slots, H)
    shape, T = _shape(cuts, mode, factor, p, query, value, 2048), cuts.tiles.size(1)
    _launch(
        _attend, (triton.cdiv(T, shape["ROWS"]) * H,), query, key, value, extra, csr._index[1], cuts.tiles, out, stats,
        part, part_stats, T, R, cuts.slots, int(seed), ACC=acc, **shape,
    )  # fmt: skip
    _merged(cuts, acc, H, V, part, out, part_stats=part_stats, stats=stats, R=R)
    return out, stats


def _attended_back(mode: str, csr: CSR, grad, out, stats, query, key, value, extra, factor, p, seed):
    """Gradients to key, value and scores [E, H]."""
    back, R, (_, H, V) = csr.transpose, csr.shape[0], value.shape
    cuts = plan(back)
    dtype, acc = _acc(grad, query, key, value, extra)
    delta = stats.new_empty(R, H)
    BV = triton.next_power_of_2(max(V, 1))
    BM = max(2048 // BV, 1)
    _launch(_row_dot, (triton.cdiv(R * H, BM),), grad, out, delta, R * H, D=V, ACC=acc, BM=BM, BD=BV)
    dkey, dvalue = None if mode == "v2" else key.new_empty(key.shape), value.new_empty(value.shape)
    dscore = stats.new_empty(csr.nnz, H)
    part_key = None if dkey is None else _part(cuts, key, dtype, H, key.size(2) if mode == "qkv" else 1)
    part_value = _part(cuts, value, dtype, H, V)
    shape, T = _shape(cuts, mode, factor, p, query, value, 1024), cuts.tiles.size(1)
    _launch(
        _attend_back, (triton.cdiv(T, shape["ROWS"]) * H,),
        grad, delta, stats, query, key, value, extra, back._index[1], back._narrow_perm, cuts.tiles,
        dkey, dvalue, dscore, part_key, part_value, T, R, int(seed), ACC=acc, **shape,
    )  # fmt: skip
    _merged(cuts, acc, H, V, part_value, dvalue)
    if dkey is not None:
        _merged(cuts, acc, H, shape["D"], part_key, dkey)
    return dkey, dvalue, dscore


def scaled_cosine(pred: Tensor, target: Tensor, alpha: float) -> Tensor:
    """(1 - cos)^alpha of the rows of ``pred`` and ``target`` [M, D], [M] in float32, or float64 for float64."""
    out = pred.new_empty(len(pred), dtype=_acc(pred, target)[0])
    _cosines(pred, target, None, out, None, alpha)
    return out


def scaled_cosine_back(
    grad: Tensor, pred: Tensor, target: Tensor, alpha: float, need_target: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients to ``pred`` and ``target`` [M, D]."""
    to_pred = pred.new_empty(pred.shape)
    to_target = target.new_empty(target.shape) if need_target else None
    _cosines(pred, target, grad, to_pred, to_target, alpha)
    return to_pred, to_target


def _cosines(pred, target, grad, out, dtarget, alpha: float) -> None:
    M, D = pred.shape
    BD = triton.next_power_of_2(max(D, 1))
    BM = max(2048 // BD, 1)
    acc = _acc(pred, target)[1]
    _launch(
        _cosine, (triton.cdiv(M, BM),), pred, target, grad, out, dtarget, M, ALPHA=alpha, D=D, ACC=acc, BM=BM, BD=BD
    )


def lse(q: Tensor, k: Tensor, tau: float, skip: int | None) -> Tensor:
    """log of the sum over j of exp(q_i.k_j / tau), without j = i + ``skip``; ``q`` [N, d] and ``k`` [M, d] to [N]."""
    dtype, acc = _acc(q, k)
    out = q.new_empty(len(q), dtype=dtype)
    shape = _square(q, k, 128)
    grid = (triton.cdiv(len(q), shape["B"]),)
    _launch(_flash, grid, q, k, out, len(q), len(k), skip, SCALE=LOG2E / tau, ACC=acc, **shape)
    return out / LOG2E


def lse_back(q: Tensor, k: Tensor, tau: float, skip: int | None, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to ``q`` and ``k``, each in a pass of its own."""
    acc, shape, logs = _acc(q, k)[1], _square(q, k, 64), lse * LOG2E
    D, BD = shape["D"], 2 * shape["BK"] if shape["D"] > shape["BK"] else shape["BK"]
    grads = q.new_empty(q.shape), k.new_empty(k.shape)
    for x, y, out, of_rows in ((q, k, grads[0], True), (k, q, grads[1], False)):
        _launch(
            _flash_back, (triton.cdiv(len(x), shape["B"]), triton.cdiv(D, BD)), x, y, logs, grad, out, len(x), len(y),
            skip, OF_ROWS=of_rows, SCALE=LOG2E / tau, FACTOR=1 / tau, ACC=acc, BD=BD, **shape,
        )  # fmt: skip
    return grads


def _square(q: Tensor, k: Tensor, most: int) -> dict[str, Any]:
    """Square tiles of logits of at most ``most``, summed over steps of BK columns."""
    D = q.size(1)
    wide = q.dtype == torch.float64
    B = min(max(triton.next_power_of_2(max(len(q), len(k))), 16), most // (1 + wide))
    BK = min(max(triton.next_power_of_2(D), 16), 32 if wide else 64)
    return {"D": D, "B": B, "BK": BK, "PRECISION": PRECISION, "num_warps": 8 if B == 128 else 4}
