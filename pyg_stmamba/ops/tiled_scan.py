r"""The selective scan in vectorised torch: tiles of rows walk through time inside the cache.

The forward pass keeps the state only at the start of every chunk of steps; the backward pass
recomputes the states of one chunk of one tile at a time. Inside, states stand before channels, so
that every inner loop runs over contiguous channels.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_STEPS = 16
_LOG2_E = 1 / math.log(2)


class _Tile(NamedTuple):
    rows: slice
    steps: slice
    chunk: int


class _Walk(NamedTuple):
    r"""What one walk through a tile yields; :obj:`decay` and :obj:`states` are buffers."""

    u: Tensor
    delta: Tensor
    drive: Tensor
    B: Tensor
    C: Tensor
    decay: Tensor
    decay_steps: tuple[Tensor, ...]
    states: Tensor


def tiled_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    mask: Tensor | None = None,
    return_last_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    r"""The recurrence of :func:`~pyg_stmamba.ops.selective_scan`, many rows at a time."""
    if mask is not None:
        # A step size of 0 carries the state on, and zeros elsewhere give the output 0.
        hidden = ~mask.unsqueeze(-1)
        u, B, C = u.masked_fill(hidden, 0), B.masked_fill(hidden, 0), C.masked_fill(hidden, 0)
        z = None if z is None else z.masked_fill(hidden, 0)
        if delta_bias is not None and not delta_softplus:
            delta, delta_bias = delta + delta_bias, None
        delta = delta.masked_fill(hidden, -torch.inf if delta_softplus else 0)
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    y, last_state, _ = _scan_forward(*inputs, delta_softplus, keep)
    return y, last_state if return_last_state else None


@torch.library.custom_op(
    "pyg_stmamba::scan_forward",
    mutates_args=(),
    schema="(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state, bool delta_softplus, bool keep) "
    "-> (Tensor, Tensor, Tensor)",
)
def _scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    y_rows = y.view(scan.u.shape)
    state = scan.initial(initial_state)
    chunks = state.new_empty(scan.num_chunks if keep else 0, *state.shape)
    with torch.autocast(u.device.type, enabled=False):
        for tile in scan.tiles():
            h = state[tile.rows]
            if keep:
                chunks[tile.chunk, tile.rows] = h
            walk = scan.walk(tile, h)
            h.copy_(walk.states[:, -1])
            out = scan.read(walk)
            if scan.z is not None:
                out *= F.silu(scan.part(scan.z, tile))
            y_rows[tile.rows, tile.steps] = out
    last_state = state.new_empty(*u.shape[:-2], *A.shape)
    scan.rows(last_state).copy_(state.transpose(1, 2))
    return y, last_state, chunks.flatten(0, 1)


@_scan_forward.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(u.dtype, torch.float32)
    state = u.new_empty(*u.shape[:-2], *A.shape, dtype=dtype)
    num_chunks = -(-u.shape[-2] // _CHUNK_STEPS) if keep else 0
    # The chunks lie side by side in the first dimension, because the compiler would specialise
    # on a dimension that may have size 1.
    num_starts = num_chunks * math.prod(u.shape[:-2])
    chunks = u.new_empty(num_starts, A.shape[1], A.shape[0], dtype=dtype)
    return _empty_like(u), state, chunks


def _empty_like(x: Tensor | None, absent: Tensor | None = None) -> Tensor:
    r"""A contiguous tensor like :obj:`x`; an empty one stands for :obj:`None`."""
    if x is None:
        return absent.new_empty(0)  # type: ignore[union-attr]
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


class _Scan:
    r"""The inputs of a scan as rows, and the arithmetic that both passes share."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        delta_softplus: bool,
    ) -> None:
        self.num_rows, (self.num_steps, self.channels) = math.prod(u.shape[:-2]), u.shape[-2:]
        self.dtype = torch.promote_types(u.dtype, torch.float32)
        self.u, self.delta, self.B, self.C = (self.rows(x) for x in (u, delta, B, C))
        self.z = None if z is None else self.rows(z)
        self.A = A.to(self.dtype).t().contiguous()
        self.A_log2 = self.A * _LOG2_E
        self.D = None if D is None else D.to(self.dtype)
        self.delta_bias = None if delta_bias is None else delta_bias.to(self.dtype)
        self.delta_softplus = delta_softplus
        self.num_chunks = -(-self.num_steps // _CHUNK_STEPS)
        self.tile_rows = _tile_rows(self.num_rows, min(self.num_steps, _CHUNK_STEPS) * A.numel(), u)
        self._buffers: dict[tuple[str, int, int], tuple[Tensor, tuple[Tensor, ...]]] = {}

    def rows(self, x: Tensor) -> Tensor:
        return x.reshape(self.num_rows, *x.shape[-2:])

    def part(self, x: Tensor, tile: _Tile) -> Tensor:
        return x[tile.rows, tile.steps].to(self.dtype)

    def initial(self, initial_state: Tensor | None) -> Tensor:
        if initial_state is None:
            return self.A.new_zeros(self.num_rows, *self.A.shape)
        state = self.rows(initial_state).transpose(1, 2)
        return state.to(self.dtype, memory_format=torch.contiguous_format, copy=True)

    def tiles(self, backward: bool = False) -> Iterator[_Tile]:
        order = range(self.num_chunks)
        for row in range(0, self.num_rows, self.tile_rows):
            for chunk in reversed(order) if backward else order:
                step = chunk * _CHUNK_STEPS
                yield _Tile(
                    slice(row, min(row + self.tile_rows, self.num_rows)),
                    slice(step, min(step + _CHUNK_STEPS, self.num_steps)),
                    chunk,
                )

    def buffer(self, name: str, like: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        r"""A reused [rows, steps, N, D] buffer for the rows and steps of :obj:`like`, and its
        steps one by one.
        """
        key = (name, like.size(0), like.size(1))
        if key not in self._buffers:
            buffer = self.A.new_empty(*like.shape[:2], *self.A.shape)
            self._buffers[key] = buffer, buffer.unbind(1)
        return self._buffers[key]

    def walk(self, tile: _Tile, state: Tensor) -> _Walk:
        u, B, C = self.part(self.u, tile), self.part(self.B, tile), self.part(self.C, tile)
        delta = self.step_sizes(self.raw_step_sizes(tile))
        drive = delta * u
        decay, decay_steps = self.buffer("decay", u)
        states, state_steps = self.buffer("states", u)
        # exp2 is several times faster than exp on CPUs where the latter is left to MKL.
        torch.mul(delta.unsqueeze(2), self.A_log2, out=decay).exp2_()
        torch.mul(B.unsqueeze(3), drive.unsqueeze(2), out=states)
        for state_t, decay_t in zip(state_steps, decay_steps):
            state = state_t.addcmul_(state, decay_t)
        return _Walk(u, delta, drive, B, C, decay, decay_steps, states)

    def raw_step_sizes(self, tile: _Tile) -> Tensor:
        delta = self.part(self.delta, tile)
        return delta if self.delta_bias is None else delta + self.delta_bias

    def step_sizes(self, raw: Tensor) -> Tensor:
        return F.softplus(raw) if self.delta_softplus else raw

    def read(self, walk: _Walk) -> Tensor:
        y = _contract(walk.C, walk.states)
        return y if self.D is None else y.addcmul_(walk.u, self.D)


def _tile_rows(num_rows: int, per_row: int, u: Tensor) -> int:
    r"""As many rows as fit into the cache (or, elsewhere, into some hundred megabytes)."""
    elements = 2**18 * torch.get_num_threads() if u.device.type == "cpu" else 2**26
    return max(1, min(num_rows, elements // max(1, per_row)))


def _contract(weights: Tensor, states: Tensor) -> Tensor:
    r"""Sums [r, k, N] times [r, k, N, D] over N."""
    batch, (num_states, channels) = states.shape[:2], states.shape[2:]
    matrices = states.view(-1, num_states, channels)
    return torch.bmm(weights.reshape(-1, 1, num_states), matrices).view(*batch, channels)


@torch.library.custom_op(
    "pyg_stmamba::scan_backward",
    mutates_args=(),
    schema="(Tensor? grad_y, Tensor? grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B, "
    "Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? initial_state, Tensor chunks, "
    "bool delta_softplus) -> Tensor[]",
)
def _scan_backward(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    chunks: Tensor,
    delta_softplus: bool,
) -> list[Tensor]:
    scan = _Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    inputs = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    grads = [_empty_like(x, u) for x in inputs]
    grad_u, grad_delta, grad_B, grad_C = (scan.rows(grads[i]) for i in (0, 1, 3, 4))
    grad_z = grads[6] if z is None else scan.rows(grads[6])
    grad_A, grad_D = torch.zeros_like(scan.A), scan.A.new_zeros(scan.channels)
    grad_bias = scan.A.new_zeros(scan.channels)
    carried = scan.initial(grad_last_state)
    chunks = chunks.view(scan.num_chunks, *carried.shape)
    grad_y = scan.rows(torch.zeros_like(u) if grad_y is None else grad_y)

    with torch.autocast(u.device.type, enabled=False):
        for tile in scan.tiles(backward=True):
            carry, before = carried[tile.rows], chunks[tile.chunk, tile.rows]
            walk = scan.walk(tile, before)
            grad_out = scan.part(grad_y, tile)
            if scan.z is not None:
                gate = scan.part(scan.z, tile)
                sigmoid = torch.sigmoid(gate)
                slope = sigmoid * (1 + gate * (1 - sigmoid))
                grad_z[tile.rows, tile.steps] = grad_out * scan.read(walk) * slope
                grad_out = grad_out * gate * sigmoid

            grad_states, grad_steps = scan.buffer("grad", walk.u)
            torch.mul(walk.C.unsqueeze(3), grad_out.unsqueeze(2), out=grad_states)
            grad_steps[-1].add_(carry)
            for k in range(len(grad_steps) - 1, 0, -1):
                grad_steps[k - 1].addcmul_(grad_steps[k], walk.decay_steps[k])

            scratch, _ = scan.buffer("scratch", walk.u)
            torch.mul(walk.states, grad_out.unsqueeze(2), out=scratch)
            grad_C[tile.rows, tile.steps] = scratch.sum(-1)
            torch.mul(grad_states, walk.drive.unsqueeze(2), out=scratch)
            grad_B[tile.rows, tile.steps] = scratch.sum(-1)
            grad_drive = _contract(walk.B, grad_states)

            exponent = walk.decay.mul_(grad_states)
            carry.copy_(exponent[:, 0])
            exponent[:, 1:].mul_(walk.states[:, :-1])
            exponent[:, 0].mul_(before)
            torch.mul(exponent, walk.delta.unsqueeze(2), out=scratch)
            grad_A += scratch.flatten(0, 1).sum(0)
            grad_step = exponent.mul_(scan.A).sum(2).addcmul_(grad_drive, walk.u)

            grad_input = grad_drive.mul_(walk.delta)
            if scan.D is not None:
                grad_D += (grad_out * walk.u).sum((0, 1))
                grad_input.addcmul_(grad_out, scan.D)
            if delta_softplus:
                grad_step *= torch.sigmoid(scan.raw_step_sizes(tile))
            grad_bias += grad_step.sum((0, 1))
            grad_u[tile.rows, tile.steps] = grad_input
            grad_delta[tile.rows, tile.steps] = grad_step

    grads[2].copy_(grad_A.t())
    if D is not None:
        grads[5].copy_(grad_D)
    if delta_bias is not None:
        grads[7].copy_(grad_bias)
    if initial_state is not None:
        scan.rows(grads[8]).copy_(carried.transpose(1, 2))
    return grads


@_scan_backward.register_fake
def _(
    grad_y: Tensor | None,
    grad_last_state: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    chunks: Tensor,
    delta_softplus: bool,
) -> list[Tensor]:
    return [_empty_like(x, u) for x in (u, delta, A, B, C, D, z, delta_bias, initial_state)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, _ = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad_y: Tensor | None, grad_last_state: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    grads = _scan_backward(grad_y, grad_last_state, *ctx.saved_tensors, ctx.delta_softplus)
    inputs = ctx.saved_tensors[:-1]
    return *(None if x is None else grad for x, grad in zip(inputs, grads)), None, None


_scan_forward.register_autograd(_differentiate, setup_context=_setup_context)
