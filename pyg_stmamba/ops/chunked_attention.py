r"""Linear attention in plain torch: by sums over all keys, or over chunks of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Causal attention writes out the weights within chunks of so many keys, about as many as features.
CHUNK = 64
# One sum over very many keys is several times slower, and less accurate, than one of sums over so
# many.
LONG_CHUNK = 512

State = tuple[Tensor, Tensor, Tensor]


def chunked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor,
    causal: bool = False,
    time_index: Tensor | None = None,
    strict: bool = False,
    initial_state: State | None = None,
    return_final_state: bool = False,
) -> tuple[Tensor, State | None]:
    r"""Computes :func:`~pyg_stmamba.ops.linear_attention.linear_attention` in a time and memory
    that are linear in the numbers of queries and keys."""
    size = value.size(-1)
    # The denominator is one more channel: what a value of one would give.
    value = F.pad(value, (0, 1), value=1.0)
    state = None
    if time_index is not None:
        total, state = _by_times(query, key, value, log_scale, time_index, strict, initial_state)
    elif causal:
        total, state = _by_chunks(query, key, value, log_scale, initial_state, return_final_state)
    else:
        total = _over_all(query, key, value, log_scale)
    y = ratio(*total.split([size, 1], dim=-1))
    if not return_final_state or state is None:
        return y, None
    sums, largest = state
    return y, (sums[..., :size], sums[..., size], largest)


def _over_all(query: Tensor, key: Tensor, value: Tensor, log_scale: Tensor) -> Tensor:
    weight = (log_scale - finite(log_scale.detach().amax(-1, keepdim=True))).exp().unsqueeze(-1)
    keys, values = _chunks(key, LONG_CHUNK), _chunks(weight * value, LONG_CHUNK)
    sums = (keys.transpose(-1, -2) @ values).sum(-3, keepdim=True)
    total = _chunks(query, LONG_CHUNK) @ sums
    return total.flatten(-3, -2).narrow(-2, 0, query.size(-2))


def _by_chunks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor,
    initial_state: State | None,
    keep_state: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    steps = query.size(-2)
    length = min(CHUNK, steps)
    # Keys of scale zero fill the last chunk up.
    query, key, value = (_chunks(x, length) for x in (query, key, value))
    log_scale = F.pad(log_scale, (0, -steps % length), value=-torch.inf)
    sums, before = _start(key, value, initial_state)
    running = torch.cat([before.unsqueeze(-1), log_scale.detach()], -1).cummax(-1).values[..., 1:]
    log_scale, running = (x.unflatten(-1, (-1, length)) for x in (log_scale, running))
    shift = finite(running)

    # Within a chunk: every weight, relative to the largest scale so far.
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    exponent = (log_scale.unsqueeze(-2) - shift.unsqueeze(-1)).masked_fill(later, -torch.inf)
    total = ((query @ key.transpose(-1, -2)) * exponent.exp()) @ value
    if query.size(-3) == 1 and initial_state is None and not keep_state:
        return total.squeeze(-3), None
    # Up to the chunk: the sums over all keys before.
    own = _sums(key, value, log_scale, shift[..., -1])
    previous, sums = _accumulate(own, shift[..., -1], sums, finite(before))
    before_chunk = torch.cat([finite(before).unsqueeze(-1), shift[..., :-1, -1]], -1)
    decay = (before_chunk.unsqueeze(-1) - shift).exp()
    total = total + decay.unsqueeze(-1) * (query @ previous)
    total = total.flatten(-3, -2).narrow(-2, 0, steps)
    return total, (sums, running[..., -1, -1])


def _by_times(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor,
    time_index: Tensor,
    strict: bool,
    initial_state: State | None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    place, times, length = _places(time_index)
    query, key, value = (_spread(x, place, times, length) for x in (query, key, value))
    scale = log_scale.new_full((*log_scale.shape[:-1], times * length), -torch.inf)
    log_scale = scale.index_copy(-1, place, log_scale).unflatten(-1, (times, length))
    sums, before = _start(key, value, initial_state)
    largest = torch.cat([before.unsqueeze(-1), log_scale.detach().amax(-1)], -1).cummax(-1).values
    shift = finite(largest)
    own = _sums(key, value, log_scale, shift[..., 1:])
    previous, last = _accumulate(own, shift[..., 1:], sums, shift[..., 0])
    if strict:
        seen = previous
    else:
        seen = torch.cat([previous[..., 1:, :, :], last.unsqueeze(-3)], -3)
    total = (query @ seen).flatten(-3, -2).index_select(-2, place)
    return total, (last, largest[..., -1])


def _places(time_index: Tensor) -> tuple[Tensor, int, int]:
    """Where each token lies when the tokens of a time are put side by side, the number of times,
    and the largest number of tokens of a time."""
    _, time, count = torch.unique(time_index, return_inverse=True, return_counts=True)
    order = time.argsort(stable=True)
    first = count.cumsum(0) - count
    rank = torch.arange(time.numel(), device=time.device) - first[time[order]]
    length = int(count.max())
    place = torch.empty_like(time)
    place[order] = time[order] * length + rank
    return place, count.numel(), length


def _spread(x: Tensor, place: Tensor, times: int, length: int) -> Tensor:
    empty = x.new_zeros(*x.shape[:-2], times * length, x.size(-1))
    return empty.index_copy(-2, place, x).unflatten(-2, (times, length))


def _start(key: Tensor, value: Tensor, initial_state: State | None) -> tuple[Tensor, Tensor]:
    """The sums, denominators last, and the largest scale before the first key."""
    if initial_state is None:
        rows = key.shape[:-3]
        sums = key.new_zeros(*rows, key.size(-1), value.size(-1))
        return sums, key.new_full(rows, -torch.inf)
    key_value, key_sum, largest = initial_state
    return torch.cat([key_value, key_sum.unsqueeze(-1)], -1), largest


def _sums(key: Tensor, value: Tensor, log_scale: Tensor, shift: Tensor) -> Tensor:
    """The sum over the keys of each chunk."""
    weight = (log_scale - shift.unsqueeze(-1)).exp().unsqueeze(-1)
    return key.transpose(-1, -2) @ (weight * value)


def _accumulate(own: Tensor, shift: Tensor, sums: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """The sums before each chunk, and those after the last, each relative to its own scale."""
    decay = (torch.cat([before.unsqueeze(-1), shift[..., :-1]], -1) - shift).exp()
    previous = []
    for chunk, factor in zip(own.unbind(-3), decay[..., None, None].unbind(-3)):
        previous.append(sums)
        sums = factor * sums + chunk
    return torch.stack(previous, -3), sums


def _chunks(x: Tensor, length: int) -> Tensor:
    """Splits the steps, with zeros after the last where they do not come out even."""
    length = max(min(length, x.size(-2)), 1)
    added = -x.size(-2) % length
    x = F.pad(x, (0, 0, 0, added)) if added else x
    return x.unflatten(-2, (-1, length))


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    r"""Divides, and gives 0 where there is nothing to divide by."""
    # The inverse of an even smaller one leaves its gradient no room in the range of numbers.
    empty = denominator < torch.finfo(denominator.dtype).tiny ** (2 / 3)
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)


def finite(log_scale: Tensor) -> Tensor:
    r"""Replaces -inf, "no key yet", which minus itself would be NaN, by what differs from any
    scale by enough to vanish."""
    return log_scale.clamp(min=torch.finfo(log_scale.dtype).min / 4)
