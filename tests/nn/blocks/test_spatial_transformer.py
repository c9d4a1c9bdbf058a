import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Data

from pyg_stmamba.nn.blocks.spatial_transformer import SpatialTransformer
from tests.laws import close, same
from tests.nn.encoder_layer_oracle import randomized, torch_layer

B, T, N, D, HEADS = 3, 4, 5, 8, 2
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])  # 0 -> 2 has no way back


def adjacency() -> torch.Tensor:
    """Row: the node that receives."""
    matrix = torch.zeros(N, N)
    matrix[EDGES[1], EDGES[0]] = 1.0
    return matrix


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("along_edges", [False, True])
def test_against_a_loop_over_frames(norm_first, along_edges):
    op = randomized(
        SpatialTransformer(D, HEADS, 2, norm_first=norm_first, neighbors_only=along_edges)
    )
    x = torch.randn(B, T, N, D, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    shut = ~(adjacency().bool() | torch.eye(N, dtype=torch.bool)) if along_edges else None
    frames = []
    for t in range(T):
        h = x2[:, t]
        for layer in op.layers:
            h = torch_layer(layer, HEADS, norm_first)(h, src_mask=shut)
        frames.append(h)
    y, expected = op(x, EDGES if along_edges else None), torch.stack(frames, 1)
    close(y, expected, 2e-6)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-5)


def test_layouts():
    op = randomized(SpatialTransformer(D, HEADS))
    x = torch.randn(B, T, N, D)
    y = op(x)
    for t in range(T):
        close(op(x[:, t]), y[:, t], 1e-6)
        close(op(x[:, t].transpose(0, 1), nodes_first=True).transpose(0, 1), y[:, t], 1e-6)


def test_mask_of_images():
    op = randomized(SpatialTransformer(D, HEADS))
    x, mask = torch.randn(B, N, D), torch.rand(B, N) > 0.4
    y = op(x, mask=mask)
    assert (y[~mask] == 0).all()
    close(y, op(x * mask.unsqueeze(-1)) * mask.unsqueeze(-1), 1e-6)


def test_ways_to_give_the_graph():
    op = randomized(SpatialTransformer(D, HEADS, 2, neighbors_only=True))
    fixed = SpatialTransformer(D, HEADS, 2, adjacency=adjacency())
    fixed.load_state_dict(op.state_dict() | {"adjacency": adjacency()})
    x = torch.randn(B, T, N, D)
    y = op(x, EDGES)
    close(op(x, adjacency()), y, 1e-6)
    close(fixed(x), y, 1e-6)
    close(fixed(x[:, 0]), y[:, 0], 1e-6)
    data = Data(x=x[0].transpose(0, 1).contiguous())
    close(fixed(data), y[0].transpose(0, 1), 1e-6)
    assert (op(x, adjacency().t()) - y).abs().max() > 1e-3


def test_a_given_graph_goes_before_the_fixed_one():
    op = SpatialTransformer(D, HEADS, adjacency=adjacency())
    other = EDGES.flip(0)
    x = torch.randn(B, T, N, D)
    close(op(x, other), op(x, adjacency().t()), 1e-6)
    assert (op(x, other) - op(x)).abs().max() > 1e-3
    assert op.neighbors_only
    assert "adjacency" in op.state_dict()
    assert "adjacency" not in SpatialTransformer(D, HEADS).state_dict()


@pytest.mark.parametrize("along_edges", [False, True])
def test_only_the_same_frame_is_seen(along_edges):
    op = SpatialTransformer(D, HEADS, neighbors_only=along_edges)
    x = torch.randn(B, T, N, D, requires_grad=True)
    op(x, EDGES)[1, 2, 3].square().sum().backward()
    seen = (x.grad != 0).any(-1)
    expected = torch.zeros(B, T, N, dtype=torch.bool)
    expected[1, 2, [2, 3] if along_edges else slice(None)] = True
    assert torch.equal(seen, expected)


def test_order_of_nodes_does_not_matter():
    op, x, order = SpatialTransformer(D, HEADS, 2), torch.randn(B, T, N, D), torch.randperm(N)
    close(op(x[:, :, order]), op(x)[:, :, order], 1e-6)


@pytest.mark.parametrize(("steps", "nodes"), [(2, 3), (4, 4), (8, 16), (16, 8), (3, 72)])
def test_cost(steps, nodes):
    """The tokens' own part, and the attention maps, one of N x N for each step."""
    op, x = SpatialTransformer(D, HEADS), torch.randn(2, steps, nodes, D)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        op(x)
    tokens = 2 * steps * nodes
    assert counter.get_total_flops() == 24 * D * D * tokens + 4 * D * tokens * nodes


def test_dropout_in_training_only():
    op, x = SpatialTransformer(D, HEADS, mlp_ratio=1.5, dropout=0.5), torch.randn(B, N, D)
    assert not torch.equal(op(x), op(x))
    same(op.eval()(x), op(x))
    assert op.layers[0].attention.dropout == 0.5
    assert op.layers[0].dropout.p == op.layers[0].feed_forward.dropout.p == 0.5
    assert op.layers[0].feed_forward.linear1.out_features == 12


def test_bad_input():
    with pytest.raises(ValueError, match="attends along the edges, but edge_index is None"):
        SpatialTransformer(D, HEADS, neighbors_only=True)(torch.randn(B, T, N, D))
    with pytest.raises(ValueError, match=r"must be \[4, 4\], got \[5, 5\]"):
        SpatialTransformer(D, HEADS, adjacency=adjacency())(torch.randn(B, T, 4, D))
    with pytest.raises(ValueError, match="C = 8 channels"):
        SpatialTransformer(D, HEADS)(torch.randn(B, N, 3))
    expected = "SpatialTransformer(8, num_heads=2, num_layers=1, neighbors_only=False)"
    assert str(SpatialTransformer(D, HEADS)) == expected
