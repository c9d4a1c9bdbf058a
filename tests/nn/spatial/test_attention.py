import pytest
import torch
from torch import nn

from pyg_stmamba.nn import SpatialAttention
from tests.laws import close

C, HEADS, NODES, STEPS = 12, 3, 6, 4
EDGES = torch.tensor([[0, 1, 1, 1, 0, 0, 2, 3], [1, 1, 1, 0, 2, 2, 3, 2]])


def pair(**options) -> tuple[SpatialAttention, nn.MultiheadAttention]:
    op = SpatialAttention(C, HEADS, **options)
    other = nn.MultiheadAttention(C, HEADS, batch_first=True)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        other.in_proj_weight.copy_(op.in_proj.weight)
        other.in_proj_bias.copy_(op.in_proj.bias)
        other.out_proj.load_state_dict(op.out_proj.state_dict())
    return op, other


def test_among_all_against_torch():
    op, other = pair()
    x = torch.randn(NODES, STEPS, C)
    z = x.transpose(0, 1)
    close(op(x, EDGES), other(z, z, z, need_weights=False)[0].transpose(0, 1), 1e-6)
    close(op(x), op(x, EDGES), 0.0)


def test_among_neighbors_against_torch():
    op, other = (module.double() for module in pair(neighbors_only=True))
    x = torch.randn(NODES, STEPS, C, dtype=torch.double, requires_grad=True)
    far = ~torch.eye(NODES, dtype=torch.bool)
    # A double edge counts twice in a graph but not in a mask, so there is none here.
    edges = EDGES.unique(dim=1)
    far[edges[1], edges[0]] = False
    z = x.transpose(0, 1)
    expected = other(z, z, z, attn_mask=far, need_weights=False)[0].transpose(0, 1)
    y = op(x, edges)
    close(y, expected, 1e-12)
    weight = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, weight)
    (expected_grad,) = torch.autograd.grad(expected, x, weight)
    close(grad, expected_grad, 1e-12)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    close(compiled(x, edges), expected, 1e-12)


@pytest.mark.parametrize("leading", [(), (STEPS,), (2, STEPS)])
def test_graphs_of_different_sizes(leading):
    op, _ = pair()
    sizes = (3, 1, 4)
    x = torch.randn(sum(sizes), *leading, C)
    batch = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3])  # graph 2 has no node
    expected = torch.cat([op(part) for part in x.split(sizes)])
    close(op(x, batch=batch), expected, 1e-6)
    leaf = x.requires_grad_()
    op(leaf, batch=batch).sum().backward()
    assert leaf.grad.isfinite().all()


def test_memory_follows_the_largest_graph():
    """A thousand small graphs: all pairs of nodes would be 9 million pairs."""
    op = SpatialAttention(4, 1)
    x, batch = torch.randn(3000, 4), torch.arange(1000).repeat_interleave(3)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        op(x, batch=batch)
    assert largest < 100_000


def test_bad_input():
    with pytest.raises(ValueError, match=r"channels \(12\).*heads \(5\)"):
        SpatialAttention(12, 5)
    with pytest.raises(ValueError, match=r"C = 12 channels last.*\[6, 4, 7\]"):
        SpatialAttention(12)(torch.zeros(6, 4, 7))
    with pytest.raises(ValueError, match="edge_index is None"):
        SpatialAttention(12, neighbors_only=True)(torch.zeros(6, 4, 12))
    with pytest.raises(ValueError, match="ascending"):
        SpatialAttention(12)(torch.zeros(3, 4, 12), batch=torch.tensor([0, 1, 0]))


def test_repr():
    expected = "SpatialAttention(12, heads=3, neighbors_only=True)"
    assert str(SpatialAttention(12, 3, neighbors_only=True)) == expected
