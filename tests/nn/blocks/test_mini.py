import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from pyg_stmamba.nn.blocks.mini import MiniSpaceTimeTransformer
from tests.laws import close

B, T, N, D = 2, 5, 4, 6
ORDERS = ("space_first", "time_first")


class Seed(nn.Module):
    """The class as the text that asked for it writes it, with `batch_first` as a choice."""

    def __init__(self, dim=3, num_heads=1, batch_first=True):
        super().__init__()
        self.spatial = nn.MultiheadAttention(dim, num_heads, batch_first=batch_first)
        self.temporal = nn.MultiheadAttention(dim, num_heads, batch_first=batch_first)

    def over_space(self, x):
        frames = []
        for t in range(x.shape[1]):
            xt = x[:, t]
            yt, _ = self.spatial(xt, xt, xt)
            frames.append(yt)
        return torch.stack(frames, dim=1)

    def over_time(self, x):
        patches = []
        for n in range(x.shape[2]):
            xn = x[:, :, n]
            yn, _ = self.temporal(xn, xn, xn)
            patches.append(yn)
        return torch.stack(patches, dim=2)

    def forward(self, x):
        return self.over_time(self.over_space(x))


def reads(op: nn.Module, x: torch.Tensor, b: int, t: int, n: int) -> torch.Tensor:
    """Which tokens move the output of one."""
    leaf = x.clone().requires_grad_()
    op(leaf)[b, t, n].square().sum().backward()
    return (leaf.grad != 0).any(-1)


@pytest.mark.parametrize("heads", [1, 3])
def test_against_the_text(heads):
    seed = Seed(D, heads)
    op = MiniSpaceTimeTransformer(D, heads)
    op.load_state_dict(seed.state_dict())
    x = torch.randn(B, T, N, D)
    close(op(x), seed(x), 1e-6)
    op = MiniSpaceTimeTransformer(D, heads, order="time_first")
    op.load_state_dict(seed.state_dict())
    close(op(x), seed.over_space(seed.over_time(x)), 1e-6)
    assert (op(x) - seed(x)).abs().max() > 1e-3


def test_defaults_are_those_of_the_text():
    op = MiniSpaceTimeTransformer()
    assert {n: p.shape for n, p in op.named_parameters()} == {
        n: p.shape for n, p in Seed().named_parameters()
    }
    assert op(torch.randn(1, 4, 4, 3)).shape == (1, 4, 4, 3)


@pytest.mark.parametrize("order", ORDERS)
def test_axes(order):
    """No other video, all patches of all frames."""
    op = MiniSpaceTimeTransformer(D, 2, order)
    x = torch.randn(B, T, N, D)
    seen = reads(op, x, 1, 2, 3)
    assert seen[1].all()
    assert not seen[0].any()


def test_the_text_as_it_stands_mixes_the_videos():
    """Why `batch_first` matters: another video is seen, and no other patch or frame."""
    seen = reads(Seed(D, 2, batch_first=False), torch.randn(B, T, N, D), 1, 2, 3)
    assert seen[:, 2, 3].all()
    assert seen.sum() == B


@pytest.mark.parametrize("order", ORDERS)
def test_attention_maps(order):
    op = MiniSpaceTimeTransformer(D, 2, order)
    x = torch.randn(B, T, N, D)
    y, maps = op(x, return_attention=True)
    close(y, op(x), 1e-6)
    assert maps.spatial.shape == (B, T, N, N)
    assert maps.temporal.shape == (B, N, T, T)
    for attention in maps:
        close(attention.sum(-1), torch.ones(attention.shape[:-1]), 1e-6)
        assert (attention > 0).all()
    first = "spatial" if order == "space_first" else "temporal"
    for t in range(T):
        for n in range(N):
            u = x[:, t] if first == "spatial" else x[:, :, n]
            _, expected = getattr(op, first)(u, u, u)
            got = maps.spatial[:, t] if first == "spatial" else maps.temporal[:, n]
            close(got, expected, 1e-6)


def test_maps_explain_the_output():
    """With one head, the output is the maps times the values."""
    op = MiniSpaceTimeTransformer(D)
    x = torch.randn(B, T, N, D)
    y, maps = op(x, return_attention=True)

    def values(attention, h):
        weight, bias = attention.in_proj_weight[2 * D :], attention.in_proj_bias[2 * D :]
        return h @ weight.t() + bias

    h = torch.einsum("btnm,btmd->btnd", maps.spatial, values(op.spatial, x))
    h = op.spatial.out_proj(h)
    h = torch.einsum("bnts,bsnd->btnd", maps.temporal, values(op.temporal, h))
    close(y, op.temporal.out_proj(h), 1e-6)


def test_the_toy():
    """Four frames of two by two patches with three channels: 4 x 4 maps, whose rows sum to one."""
    _, maps = MiniSpaceTimeTransformer()(torch.randn(1, 4, 4, 3), return_attention=True)
    for attention in maps:
        assert attention.shape == (1, 4, 4, 4)
        close(attention.sum(-1), torch.ones(1, 4, 4), 1e-6)


def test_maps_of_graphs_give_padding_no_weight():
    op = MiniSpaceTimeTransformer(D)
    graphs = [Data(x=torch.randn(n, T, D), edge_index=torch.zeros(2, 0).long()) for n in (4, 2)]
    _, maps = op(Batch.from_data_list(graphs), return_attention=True)
    _, alone = op(graphs[1], return_attention=True)
    assert (maps.spatial[1, :, :2, 2:] == 0).all()
    close(maps.spatial[1, :, :2, :2], alone.spatial[0], 1e-6)
    close(maps.temporal[1, :2], alone.temporal[0], 1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_mask_against_torch(order):
    """Where each frame and each patch has something to see, as key padding mask."""
    op = MiniSpaceTimeTransformer(D, 2, order)
    x, mask = torch.randn(B, T, N, D), torch.rand(B, T, N) > 0.3
    mask[:, 0], mask[:, :, 0] = True, True

    def over_space(x):
        return torch.stack(
            [
                op.spatial(x[:, t], x[:, t], x[:, t], key_padding_mask=~mask[:, t])[0]
                for t in range(T)
            ],
            1,
        )

    def over_time(x):
        return torch.stack(
            [op.temporal(*(x[:, :, n],) * 3, key_padding_mask=~mask[:, :, n])[0] for n in range(N)],
            2,
        )

    x = x * mask.unsqueeze(-1)
    both = over_time(over_space(x)) if order == "space_first" else over_space(over_time(x))
    close(op(x, mask=mask), both * mask.unsqueeze(-1), 1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_no_softmax_is_over_nothing(order):
    """Where the weights are wanted, torch answers it by NaN."""
    op = MiniSpaceTimeTransformer(D, 2, order)
    x = torch.randn(B, T, N, D, requires_grad=True)
    mask = torch.rand(B, T, N) > 0.3
    mask[:, 1], mask[:, :, 2] = False, False
    y, maps = op(x, mask=mask, return_attention=True)
    close(y, op(x, mask=mask), 1e-6)
    assert all(attention.isfinite().all() for attention in maps)
    y.square().sum().backward()
    assert x.grad.isfinite().all()


def test_bad_options():
    with pytest.raises(ValueError, match=r"'joint'.*'space_first' or 'time_first'"):
        MiniSpaceTimeTransformer(order="joint")
    with pytest.raises(ValueError, match=r"dim \(3\).*num_heads \(2\)"):
        MiniSpaceTimeTransformer(num_heads=2)
    expected = "MiniSpaceTimeTransformer(3, num_heads=1, order='space_first')"
    assert str(MiniSpaceTimeTransformer()) == expected
