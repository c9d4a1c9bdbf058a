r"""Attention whose weights are products of features: linear in the number of steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .backend import Implementation, check_devices, check_floating_point, choose, no_reasons
from .chunked_attention import chunked_attention, finite, ratio


class LinearAttentionState(NamedTuple):
    r"""What causal :func:`linear_attention` knows of the keys it has seen; its size does not
    depend on how many there were."""

    key_value: Tensor  # [..., M, E]: sum over keys of exp(s - log_scale) f v^T
    key: Tensor  # [..., M]: sum over keys of exp(s - log_scale) f
    log_scale: Tensor  # [...]: the largest s, -inf where there was none


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor | None = None,
    padding_mask: Tensor | None = None,
    *,
    causal: bool = False,
    time_index: Tensor | None = None,
    strict: bool = False,
    initial_state: LinearAttentionState | None = None,
    return_final_state: bool = False,
    implementation: str | None = None,
) -> Tensor | tuple[Tensor, LinearAttentionState]:
    r"""Attention with weights that are products of features, from the `"Transformers are RNNs"
    <https://arxiv.org/abs/2006.16236>`_ and `"Rethinking Attention with Performers"
    <https://arxiv.org/abs/2009.14794>`_ papers.

    .. math::
        \mathbf{y}_i = \frac{\sum_j e^{s_j} (\mathbf{q}_i^{\top} \mathbf{k}_j) \, \mathbf{v}_j}
        {\sum_j e^{s_j} \, \mathbf{q}_i^{\top} \mathbf{k}_j}

    over all keys that are no padding and, if it is causal, :math:`j \leq i`; with times,
    :math:`\tau_j \leq \tau_i`. A query without any key gives 0, and no keys leave a state as it is.

    Scales are taken relative to the largest one that the query sees, so that neither the
    magnitude of the features nor a future key has an influence.

    Args:
        query (torch.Tensor): Features of the queries, not negative. Their scale cancels.
        key (torch.Tensor): Features of the keys, not negative.
        value (torch.Tensor): The values.
        log_scale (torch.Tensor, optional): The log scale :math:`s` of the features of each key;
            zero if not given. (default: :obj:`None`)
        padding_mask (torch.Tensor, optional): Booleans, :obj:`True` = not allowed.
            (default: :obj:`None`)
        causal (bool, optional): Whether a query sees keys up to its own place only.
            (default: :obj:`False`)
        time_index (torch.Tensor, optional): Integers :math:`\tau`: a query sees the keys of its
            own time and of earlier times, in whatever order they lie. (default: :obj:`None`)
        strict (bool, optional): Whether a query sees earlier times only, together with
            :obj:`time_index`. (default: :obj:`False`)
        initial_state (LinearAttentionState, optional): What was seen before the first key; needs
            :obj:`causal` or :obj:`time_index`. (default: :obj:`None`)
        return_final_state (bool, optional): If set to :obj:`True`, also returns the state after
            the last key, likewise. (default: :obj:`False`)
        implementation (str, optional): The implementation to run; the best one for these tensors
            if not given. (default: :obj:`None`)

    Shapes:
        - **input:** :obj:`query` :math:`(*, L, M)`, :obj:`key` :math:`(*, S, M)`, :obj:`value`
          :math:`(*, S, E)`, :obj:`log_scale` and :obj:`padding_mask` :math:`(*, S)`,
          :obj:`time_index` :math:`(S)`; causal and with times :math:`L = S`
        - **output:** :math:`(*, L, E)`, and the state if :obj:`return_final_state` is set

    Raises:
        ValueError: If shapes do not fit each other, dtypes are wrong, devices differ, options
            exclude each other, or the implementation is unknown.
    """
    ordered = causal or time_index is not None
    _check(query, key, value, log_scale, padding_mask, causal, time_index, strict)
    _check_state(query, value, initial_state, return_final_state, ordered)
    if log_scale is None:
        log_scale = key.new_zeros(key.shape[:-1])
    if padding_mask is not None:
        hidden = padding_mask.unsqueeze(-1)
        key, value = key.masked_fill(hidden, 0.0), value.masked_fill(hidden, 0.0)
        log_scale = log_scale.masked_fill(padding_mask, -torch.inf)
    # Sums of many terms need the digits of float32.
    dtype, wide = value.dtype, torch.promote_types(value.dtype, torch.float32)
    query, key, value, log_scale = (x.to(wide) for x in (query, key, value, log_scale))
    arguments = (query, key, value, log_scale, causal, time_index, strict, initial_state)
    chosen = choose("linear_attention", IMPLEMENTATIONS, implementation, *arguments)
    run = chosen.run if key.size(-2) > 0 else _without_keys
    with torch.autocast(query.device.type, enabled=False):
        y, state = run(*arguments, return_final_state=return_final_state)
    y = y.to(dtype)
    return (y, LinearAttentionState(*state)) if return_final_state else y


def linear_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor,
    causal: bool = False,
    time_index: Tensor | None = None,
    strict: bool = False,
    initial_state: LinearAttentionState | None = None,
    return_final_state: bool = False,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    r"""The sums of :func:`linear_attention` with every weight written out, quadratic in time."""
    visible = _visible(query, key, causal, time_index, strict)
    seen = log_scale.detach().unsqueeze(-2).masked_fill(~visible, -torch.inf)
    largest = seen.amax(-1)  # [..., L]
    if initial_state is not None:
        largest = torch.maximum(largest, initial_state.log_scale.unsqueeze(-1))
    largest = finite(largest)
    exponent = (log_scale.unsqueeze(-2) - largest.unsqueeze(-1)).masked_fill(~visible, -torch.inf)
    weight = (query @ key.transpose(-1, -2)) * exponent.exp()
    numerator, denominator = weight @ value, weight.sum(-1, keepdim=True)
    if initial_state is not None:
        before = (finite(initial_state.log_scale).unsqueeze(-1) - largest).exp().unsqueeze(-1)
        numerator = numerator + before * (query @ initial_state.key_value)
        denominator = denominator + before * (query @ initial_state.key.unsqueeze(-1))
    y = ratio(numerator, denominator)
    if not return_final_state:
        return y, None
    last = log_scale.detach().amax(-1)
    if initial_state is not None:
        last = torch.maximum(last, initial_state.log_scale)
    scaled = (log_scale - finite(last).unsqueeze(-1)).exp().unsqueeze(-1) * key
    key_value, key_sum = scaled.transpose(-1, -2) @ value, scaled.sum(-2)
    if initial_state is not None:
        before = (finite(initial_state.log_scale) - finite(last)).exp().unsqueeze(-1)
        key_value = key_value + before.unsqueeze(-1) * initial_state.key_value
        key_sum = key_sum + before * initial_state.key
    return y, (key_value, key_sum, last)


def _without_keys(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor,
    causal: bool,
    time_index: Tensor | None,
    strict: bool,
    initial_state: LinearAttentionState | None,
    return_final_state: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    key_value = key.transpose(-1, -2) @ value  # zeros
    nothing = (key_value, key.sum(-2), log_scale.new_full(log_scale.shape[:-1], -torch.inf))
    return query @ key_value, nothing if initial_state is None else initial_state


def _visible(
    query: Tensor, key: Tensor, causal: bool, time_index: Tensor | None, strict: bool
) -> Tensor:
    if time_index is not None:
        later = time_index.unsqueeze(-1)
        return later > time_index if strict else later >= time_index
    visible = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device)
    return visible.tril() if causal else visible


IMPLEMENTATIONS = (
    Implementation("torch", chunked_attention, no_reasons),
    Implementation("reference", linear_attention_reference, no_reasons),
)


def example_inputs(device: str) -> tuple[Tensor, ...]:
    r"""Small inputs on which the implementations are asked whether they run on :obj:`device`."""
    features = torch.ones(2, 5, 4, device=device)
    return features, features, features, torch.zeros(2, 5, device=device)


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_scale: Tensor | None,
    padding_mask: Tensor | None,
    causal: bool,
    time_index: Tensor | None,
    strict: bool,
) -> None:
    check_floating_point(query=query, key=key, value=value, log_scale=log_scale)
    check_devices(
        query=query, key=key, value=value, log_scale=log_scale, padding_mask=padding_mask,
        time_index=time_index,
    )  # fmt: skip
    if len(dtypes := {x.dtype for x in (query, key, value, log_scale) if x is not None}) > 1:
        raise ValueError(
            f"query, key, value and log_scale must share a dtype, got {sorted(map(str, dtypes))}"
        )
    shapes = f"query {list(query.shape)}, key {list(key.shape)}, value {list(value.shape)}"
    fits = min(query.dim(), key.dim(), value.dim()) >= 2 and key.size(-1) == query.size(-1) > 0
    if not fits or query.shape[:-2] != key.shape[:-2] or key.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            "query [..., L, M], key [..., S, M] and value [..., S, E] must share their leading "
            f"dimensions, the number of features M > 0 and that of keys S, got {shapes}"
        )
    for name, tensor in (("log_scale", log_scale), ("padding_mask", padding_mask)):
        if tensor is not None and tensor.shape != key.shape[:-1]:
            raise ValueError(
                f"{name} must hold one entry a key, {list(key.shape[:-1])}, got "
                f"{list(tensor.shape)}; attention by features cannot mask single pairs"
            )
    if padding_mask is not None and padding_mask.dtype != torch.bool:
        raise ValueError(f"padding_mask must be boolean, got {padding_mask.dtype}")
    if (causal or time_index is not None) and query.size(-2) != key.size(-2):
        raise ValueError(f"causal attention needs as many queries as keys, got {shapes}")
    if causal and time_index is not None:
        raise ValueError("causal=True and time_index are two orders; give one of them")
    if strict and time_index is None:
        raise ValueError("strict=True needs time_index: it leaves out the keys of the same time")
    if time_index is not None and (
        time_index.shape != key.shape[-2:-1] or time_index.is_floating_point()
    ):
        raise ValueError(
            f"time_index must be one integer a key, [{key.size(-2)}], got {time_index.dtype} "
            f"{list(time_index.shape)}"
        )


def _check_state(
    query: Tensor,
    value: Tensor,
    initial_state: LinearAttentionState | None,
    return_final_state: bool,
    ordered: bool,
) -> None:
    if not ordered and (initial_state is not None or return_final_state):
        raise ValueError("a state needs an order: causal=True or time_index")
    if initial_state is None:
        return
    check_devices(query=query, initial_state=initial_state.key_value)
    wide = torch.promote_types(query.dtype, torch.float32)
    if any(tensor.dtype != wide for tensor in initial_state):
        raise ValueError(
            f"initial_state must hold {wide} beside {query.dtype}, got "
            f"{[tensor.dtype for tensor in initial_state]}"
        )
    rows, features, size = tuple(query.shape[:-2]), query.size(-1), value.size(-1)
    expected = ((*rows, features, size), (*rows, features), rows)
    given = tuple(tuple(tensor.shape) for tensor in initial_state)
    if given != expected:
        raise ValueError(
            f"initial_state must hold tensors of shapes {expected} beside query "
            f"{list(query.shape)} and value {list(value.shape)}, got {given}"
        )
