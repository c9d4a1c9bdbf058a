"""What every temporal operator, every spatial operator, every block and every model obeys.

A temporal law takes anything with the temporal protocol: `op(x, mask)`, `op.prefill`, `op.step`
on `x[..., T, C]`. A spatial law takes anything called as `op(x, edge_index, edge_attr, batch)` on
`x[N, ..., C]`. `OnGraph` gives a block or a model with a fixed graph the temporal face.
"""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import networkx
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class OnGraph(nn.Module):
    """A block or model on a fixed graph, as a temporal operator."""

    def __init__(self, block: nn.Module, edge_index: Tensor, edge_attr: Tensor | None = None):
        super().__init__()
        self.block, self.edge_index, self.edge_attr = block, edge_index, edge_attr
        self.causal = block.causal

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.block(x, self.edge_index, self.edge_attr, mask=mask, nodes_first=True)

    def prefill(self, x: Tensor, state: Any = None, mask: Tensor | None = None) -> Any:
        return self.block.prefill(x, self.edge_index, self.edge_attr, state, mask=mask)

    def step(self, x: Tensor, state: Any = None, mask: Tensor | None = None) -> Any:
        return self.block.step(x, self.edge_index, self.edge_attr, state, mask=mask)


class Forecasts(nn.Module):
    """A model that reads out the last step, on a fixed graph, as a temporal operator: what stands
    at step t is the forecast after step t, from the whole series up to there or from a state."""

    causal = True

    def __init__(self, model: nn.Module, edge_index: Tensor, edge_attr: Tensor | None = None):
        super().__init__()
        self.model, self.graph = model, (edge_index, edge_attr)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x_mask = self._of_all_channels(mask, x)
        parts = [
            self.model(x[..., :t, :], *self.graph, x_mask=x_mask[..., :t, :], nodes_first=True)
            for t in range(1, x.size(-2) + 1)
        ]
        return torch.stack(parts, -3).flatten(-2)

    def prefill(self, x: Tensor, state: Any = None, mask: Tensor | None = None) -> Any:
        """The forecasts within the chunk one by one, and the state of the whole chunk at once."""
        parts, within = [], state
        for t in range(x.size(-2)):
            y, within = self.step(x[..., t, :], within, None if mask is None else mask[..., t])
            parts.append(y)
        x_mask = self._of_all_channels(mask, x)
        last, state = self.model.prefill(x, *self.graph, state=state, x_mask=x_mask)
        close(last.flatten(-2), parts[-1], 1e-5)
        return torch.stack(parts, -2), state

    def step(self, x: Tensor, state: Any = None, mask: Tensor | None = None) -> Any:
        x_mask = self._of_all_channels(mask, x)
        y, state = self.model.step(x, *self.graph, state=state, x_mask=x_mask)
        return y.flatten(-2), state

    @staticmethod
    def _of_all_channels(mask: Tensor | None, x: Tensor) -> Tensor:
        every = torch.ones_like(x, dtype=torch.bool)
        return every if mask is None else every & mask.unsqueeze(-1)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def same(a: Tensor, b: Tensor) -> None:
    """Bit by bit, NaN equal to NaN."""
    torch.testing.assert_close(a, b, atol=0.0, rtol=0.0, equal_nan=True)


def random_mask(x: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(x.shape[:-1], generator=generator) > 0.4


# Temporal laws


@torch.no_grad()
def whole_is_chunks_is_steps(
    op: nn.Module, x: Tensor, tolerance: float, mask: Tensor | None = None
) -> None:
    whole = op(x, mask)
    prefilled, _ = op.prefill(x, None, mask)
    close(prefilled, whole, tolerance)

    steps = x.size(-2)
    for lengths in ((1, steps - 1), (steps - 2, 2), (2, 1, 1, steps - 4), (1,) * steps):
        state, parts, masks = None, [], None
        if mask is not None:
            masks = mask.split(lengths, -1)
        for i, chunk in enumerate(x.split(lengths, -2)):
            part, state = op.prefill(chunk, state, masks[i] if masks else None)
            parts.append(part)
        close(torch.cat(parts, -2), whole, tolerance)

    state, outputs = None, []
    for t in range(steps):
        y, state = op.step(x[..., t, :], state, None if mask is None else mask[..., t])
        outputs.append(y)
    close(torch.stack(outputs, -2), whole, tolerance)


@torch.no_grad()
def states_are_values(op: nn.Module, x: Tensor) -> None:
    """A state can be used again: the operator neither changes it nor remembers anything."""
    first, second = x.chunk(2, -2)
    _, state = op.prefill(first)
    kept = copy.deepcopy(state)
    once, _ = op.prefill(second, state)
    again, _ = op.prefill(second, state)
    same(again, once)
    for before, after in zip(tree_leaves(kept), tree_leaves(state), strict=True):
        same(after, before)


def the_future_moves_nothing(op: nn.Module, x: Tensor, mask: Tensor | None = None) -> None:
    """Exactly nothing, in values and in gradients, and with dropout on."""
    for t in range(1, x.size(-2)):
        torch.manual_seed(0)
        before = op(x, mask)
        future = torch.cat([x[..., :t, :], 7.0 - 3.0 * x[..., t:, :]], -2)
        torch.manual_seed(0)
        after = op(future, mask)
        same(after[..., :t, :], before[..., :t, :])
        assert mask is not None or not torch.equal(after[..., t:, :], before[..., t:, :])

    t = x.size(-2) // 2
    leaf = x.clone().requires_grad_()
    op(leaf, mask)[..., :t, :].square().sum().backward()
    assert (leaf.grad[..., t:, :] == 0).all()
    assert (leaf.grad[..., :t, :] != 0).any()


@torch.no_grad()
def the_past_moves_the_present(op: nn.Module, x: Tensor) -> None:
    """Else it were no temporal operator."""
    past = x.clone()
    past[..., 0, :].mul_(-2.0).add_(1.0)  # a layer norm would hide a mere shift
    assert not torch.equal(op(past)[..., -1, :], op(x)[..., -1, :])


def a_stream_needs_causality(op: nn.Module, x: Tensor) -> None:
    for method, given in (("prefill", x), ("step", x[..., 0, :])):
        with pytest.raises(ValueError, match="not causal"):
            getattr(op, method)(given)


@torch.no_grad()
def rows_are_independent(op: nn.Module, x: Tensor, dim: int = 0, tolerance: float = 1e-6) -> None:
    whole = op(x)
    other = x.clone()
    other.select(dim, 0).mul_(-2.0).add_(5.0)
    rest = torch.arange(1, x.size(dim))
    same(op(other).index_select(dim, rest), whole.index_select(dim, rest))
    close(op(x.narrow(dim, 1, 1)), whole.narrow(dim, 1, 1), tolerance)


def masked_steps_have_no_influence(op: nn.Module, x: Tensor, mask: Tensor) -> None:
    """Not even when they hold NaN or infinity; their own output is zero."""
    hidden = ~mask.unsqueeze(-1)
    with torch.no_grad():
        y = op(x, mask)
        assert (y.masked_select(hidden) == 0).all()
        for junk in (1e4, float("nan"), float("inf")):
            same(op(x.masked_fill(hidden, junk), mask), y)
        assert not torch.equal(y, op(x).masked_fill(hidden, 0.0))
        if op.causal:
            same(op.prefill(x.masked_fill(hidden, float("nan")), None, mask)[0], y)

    leaf = x.masked_fill(hidden, float("nan")).requires_grad_()
    op.zero_grad()
    op(leaf, mask).square().sum().backward()
    assert (leaf.grad.masked_select(hidden) == 0).all()
    for name, parameter in op.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def fully_masked_rows_give_zero(op: nn.Module, x: Tensor) -> None:
    """One row, and all of them; the gradients stay finite."""
    for rows in (slice(0, 1), slice(None)):
        mask = torch.ones(x.shape[:-1], dtype=torch.bool)
        mask[rows] = False
        leaf = x.clone().requires_grad_()
        op.zero_grad()
        y = op(leaf, mask)
        assert (y[rows] == 0).all()
        y.square().sum().backward()
        assert leaf.grad.isfinite().all()
        for name, parameter in op.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name


# Spatial laws


@torch.no_grad()
def instants_do_not_mix(
    op: Callable[..., Tensor], x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None
) -> None:
    whole = op(x, edge_index, edge_attr)
    instants = range(x.size(-2))
    per_step = edge_attr is not None and edge_attr.dim() > 2
    for t in instants:
        attr = edge_attr[..., t, :] if per_step else edge_attr
        close(op(x[..., t, :], edge_index, attr), whole[..., t, :], 1e-6)
    other = x.clone()
    other[..., 0, :].mul_(-2.0).add_(1.0)
    same(op(other, edge_index, edge_attr)[..., 1:, :], whole[..., 1:, :])


@torch.no_grad()
def order_does_not_matter(
    op: Callable[..., Tensor],
    x: Tensor,
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Neither that of the nodes nor that of the edges."""
    whole = op(x, edge_index, edge_attr)
    nodes = torch.randperm(x.size(0))
    edges = torch.randperm(edge_index.size(1))
    place = torch.empty_like(nodes).scatter_(0, nodes, torch.arange(x.size(0)))
    renamed = place[edge_index[:, edges]]
    attr = None if edge_attr is None else edge_attr[edges]
    close(op(x[nodes], renamed, attr), whole[nodes], tolerance)


@torch.no_grad()
def only_near_nodes_matter(
    op: Callable[..., Tensor],
    x: Tensor,
    edge_index: Tensor,
    edge_attr: Tensor | None = None,
    hops: int = 1,
) -> None:
    """Node j moves exactly the nodes at most `hops` edges downstream of it."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(x.size(0)))
    graph.add_edges_from(edge_index.t().tolist())
    whole = op(x, edge_index, edge_attr)
    for j in range(x.size(0)):
        other = x.clone()
        other[j] = 3.0 - 2.0 * other[j]
        moved = (op(other, edge_index, edge_attr) != whole).flatten(1).any(1)
        near = networkx.single_source_shortest_path_length(graph, j, cutoff=hops)
        assert set(moved.nonzero().flatten().tolist()) == set(near)


@torch.no_grad()
def graphs_do_not_mix(
    op: Callable[..., Tensor],
    graphs: Sequence[tuple[Tensor, Tensor, Tensor | None]],
    tolerance: float = 1e-6,
) -> None:
    """A disjoint union gives what its graphs give one by one."""
    sizes = [x.size(0) for x, _, _ in graphs]
    starts = torch.tensor([0, *sizes]).cumsum(0)
    x = torch.cat([x for x, _, _ in graphs])
    edge_index = torch.cat([e + s for (_, e, _), s in zip(graphs, starts)], 1)
    attrs = [a for _, _, a in graphs if a is not None]
    edge_attr = torch.cat(attrs) if attrs else None
    batch = torch.arange(len(graphs)).repeat_interleave(torch.tensor(sizes))
    together = op(x, edge_index, edge_attr, batch=batch)
    one_by_one = torch.cat([op(*graph) for graph in graphs])
    close(together, one_by_one, tolerance)


def lonely_nodes_are_harmless(op: nn.Module, x: Tensor, edge_attr: Tensor | None = None) -> None:
    """Isolated nodes, and no edge at all, give finite outputs and gradients."""
    one = torch.tensor([[0], [1]])
    for edge_index in (one, one[:, :0]):
        attr = None if edge_attr is None else edge_attr[: edge_index.size(1)]
        leaf = x.clone().requires_grad_()
        y = op(leaf, edge_index, attr)
        assert y.isfinite().all()
        y.square().sum().backward()
        assert leaf.grad.isfinite().all()


# Laws of every module


@torch.no_grad()
def copies_are_equal(op: nn.Module, run: Callable[[nn.Module], Tensor]) -> None:
    """Deep copy, pickle and a strictly loaded state dictionary give the same function."""
    expected = run(op)
    same(run(copy.deepcopy(op)), expected)
    same(run(pickle.loads(pickle.dumps(op))), expected)

    file = io.BytesIO()
    torch.save(op.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(op)
    for parameter in other.parameters():
        parameter.fill_(0.5)
    if any(True for _ in op.parameters()):
        assert not torch.equal(run(other), expected)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    same(run(other), expected)


def inputs_stay_untouched(op: nn.Module, *inputs: Any, **options: Any) -> None:
    tensors = [t for t in (*inputs, *options.values()) if isinstance(t, Tensor)]
    before = [t.clone() for t in tensors]
    y = op(*inputs, **options)
    if y.requires_grad:
        y.sum().backward()
    for kept, tensor in zip(before, tensors):
        same(tensor.detach(), kept)


@torch.no_grad()
def layout_does_not_matter(op: nn.Module, x: Tensor, *inputs: Any, tolerance: float = 1e-6) -> None:
    """Transposed, strided and expanded inputs give what a contiguous copy gives."""
    y = op(x, *inputs)
    close(op(x.transpose(0, -1).contiguous().transpose(0, -1), *inputs), y, tolerance)
    close(op(x.repeat_interleave(2, -2)[..., ::2, :], *inputs), y, tolerance)
    wide = x[..., :1, :].expand_as(x)
    close(op(wide, *inputs), op(wide.contiguous(), *inputs), tolerance)
