import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv, GCNConv, Sequential

from pyg_stmamba.nn import (
    SpatialAttention,
    SpatialGAT,
    SpatialTransformer,
    STMambaBlock,
    TemporalAttention,
    TemporalMamba,
    TemporalTransformer,
)
from tests.laws import close, same
from tests.nn.oracles import mamba_mixer

C, NODES, STEPS = 8, 5, 6
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])  # 0 -> 2 has no way back


def randomized(**options) -> STMambaBlock:
    block = STMambaBlock(C, d_state=4, num_heads=2, **options)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return block.eval()


class ByHand(nn.Module):
    """The two phases put together from PyG's, torch's and Hugging Face's layers."""

    def __init__(self, block: STMambaBlock):
        super().__init__()
        self.pre = block.norm == "pre"
        self.spatial = GATConv(C, C // 2, heads=2, edge_dim=block.edge_dim)
        self.spatial.load_state_dict(block.spatial.state_dict())
        self.temporal = mamba_mixer(block.temporal)
        self.norm_spatial, self.norm_temporal = nn.LayerNorm(C), nn.LayerNorm(C)
        self.norm_spatial.load_state_dict(block.norm_spatial.state_dict())
        self.norm_temporal.load_state_dict(block.norm_temporal.state_dict())

    def forward(self, x, edge_index, edge_attr=None):
        def instants(x):
            return torch.stack([self.spatial(u, edge_index, edge_attr) for u in x.unbind(1)], 1)

        if self.pre:
            x = x + instants(self.norm_spatial(x))
            return x + self.temporal(self.norm_temporal(x))
        x = self.norm_spatial(x + instants(x))
        return self.norm_temporal(x + self.temporal(x))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("edge_dim", [None, 2])
def test_against_its_parts(norm, edge_dim):
    block = randomized(norm=norm, edge_dim=edge_dim)
    hand = ByHand(block)
    hand.load_state_dict(block.state_dict(), strict=True)
    edge_attr = None if edge_dim is None else torch.randn(EDGES.size(1), edge_dim)
    x = torch.randn(NODES, STEPS, C, requires_grad=True)
    x2 = x.detach().clone().requires_grad_()
    y, expected = block(x, EDGES, edge_attr), hand(x2, EDGES, edge_attr)
    close(y, expected, 1e-5)

    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, x2.grad, 1e-5)
    theirs = dict(hand.named_parameters())
    for name, parameter in block.named_parameters():
        close(parameter.grad, theirs[name].grad, 3e-5)


def test_all_forms_of_input():
    block = randomized()
    x = torch.randn(3, STEPS, NODES, C)  # B T N C
    y = block(x, EDGES)
    assert y.shape == x.shape
    nodes_first = x.permute(2, 0, 1, 3)
    close(block(nodes_first, EDGES, nodes_first=True), y.permute(2, 0, 1, 3), 1e-6)
    for b in range(3):
        close(block(nodes_first[:, b], EDGES), y[b].transpose(0, 1), 1e-6)
    adj = torch.zeros(NODES, NODES)
    adj[EDGES[1], EDGES[0]] = torch.rand(EDGES.size(1)) + 0.5
    close(block(x, adj), y, 1e-6)
    assert (block(x, adj.t()) - y).abs().max() > 1e-3

    mask = torch.rand(3, STEPS, NODES) > 0.3
    masked = block(x, EDGES, mask=mask)
    for b in range(3):
        one = block(nodes_first[:, b], EDGES, mask=mask[b].t())
        close(one, masked[b].transpose(0, 1), 1e-6)


def test_weighted_matrix():
    adj = torch.zeros(NODES, NODES)
    adj[EDGES[1], EDGES[0]] = torch.rand(EDGES.size(1)) + 0.5
    x = torch.randn(2, STEPS, NODES, C)
    weights = adj[EDGES[1], EDGES[0]].unsqueeze(-1)
    block = randomized(edge_dim=1)
    close(block(x, adj), block(x, EDGES, weights), 1e-6)
    assert (block(x, adj) - block(x, 2 * adj)).abs().max() > 1e-3
    block = randomized()
    close(block(x, adj), block(x, 2 * adj), 0.0)


@pytest.mark.parametrize("spatial", ["gat", "gatv2", "attention", "dot", "interaction"])
def test_data_and_batch(spatial):
    block = randomized(spatial=spatial)
    graphs = []
    for nodes in (5, 3, 4):
        edges = torch.randint(0, nodes, (2, 2 * nodes))
        graphs.append(Data(x=torch.randn(nodes, STEPS, C), edge_index=edges))
    one_by_one = torch.cat([block(g.x, g.edge_index) for g in graphs])
    close(torch.cat([block(g) for g in graphs]), one_by_one, 1e-6)
    close(block(Batch.from_data_list(graphs)), one_by_one, 1e-6)


def test_data_with_a_mask_and_edge_features():
    block = randomized(edge_dim=2)
    x, edge_attr = torch.randn(NODES, STEPS, C), torch.randn(EDGES.size(1), 2)
    x_mask = torch.rand(NODES, STEPS, C) > 0.8
    data = Data(x=x, edge_index=EDGES, edge_attr=edge_attr, x_mask=x_mask)
    close(block(data), block(x, EDGES, edge_attr, mask=x_mask.any(-1)), 0.0)
    data.x_mask = x_mask[..., 0]
    close(block(data), block(x, EDGES, edge_attr, mask=x_mask[..., 0]), 0.0)
    windows = Data(x=torch.randn(NODES, 3, STEPS, C), edge_index=EDGES, edge_attr=edge_attr)
    close(block(windows), block(windows.x, EDGES, edge_attr, nodes_first=True), 0.0)


def test_inside_sequential():
    first, second = randomized(), randomized(norm="pre")
    model = Sequential(
        "x, edge_index", [(first, "x, edge_index -> x"), nn.ReLU(), (second, "x, edge_index -> x")]
    )
    x = torch.randn(NODES, STEPS, C)
    close(model(x, EDGES), second(first(x, EDGES).relu(), EDGES), 0.0)


def test_inside_a_plain_module():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.block = GCNConv(3, C), STMambaBlock(C)

        def forward(self, x, edge_index):
            x = torch.stack([self.conv(u, edge_index) for u in x.unbind(1)], 1)
            return self.block(x, edge_index)[:, -1]

    model = Model()
    model(torch.randn(NODES, STEPS, 3), EDGES).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("features", ["static", "each step"])
def test_stream_with_edge_features_and_gaps(features):
    block = randomized(edge_dim=2)
    steps = (STEPS,) if features == "each step" else ()
    edge_attr = torch.randn(EDGES.size(1), *steps, 2)
    x, mask = torch.randn(NODES, 3, STEPS, C), torch.rand(NODES, 3, STEPS) > 0.3
    y = block(x, EDGES, edge_attr, mask=mask, nodes_first=True)
    state = None
    for t in range(STEPS):
        now = edge_attr[:, t] if features == "each step" else edge_attr
        out, state = block.step(x[:, :, t], EDGES, now, state, mask=mask[:, :, t])
        close(out, y[:, :, t], 1e-5)
    each = torch.randn(EDGES.size(1), 3, STEPS, 2)
    y = block(x, EDGES, each, nodes_first=True)
    out, _ = block.step(x[:, :, 0], EDGES, each[:, :, 0])
    close(out, y[:, :, 0], 1e-5)


def test_phases_can_be_left_out():
    x = torch.randn(NODES, STEPS, C)
    block = randomized(spatial=None)
    assert not any("spatial" in name for name in block.state_dict())
    close(block(x), block.norm_temporal(x + block.temporal(x)), 0.0)
    block = randomized(temporal=None)
    assert not any("temporal" in name for name in block.state_dict())
    close(block(x, EDGES), block.norm_spatial(x + block.spatial(x, EDGES)), 0.0)
    same(STMambaBlock(C, spatial=None, temporal=None)(x), x)


def test_instances():
    spatial, temporal = SpatialGAT(C, C, residual=True), TemporalMamba(C, bidirectional=True)
    block = STMambaBlock(C, spatial=spatial, temporal=temporal)
    assert block.spatial is spatial
    assert block.temporal is temporal
    assert not block.causal
    with pytest.raises(ValueError, match="not causal"):
        block.step(torch.zeros(NODES, C), EDGES)


def test_modules_of_ones_own():
    class Mean(nn.Module):
        def forward(self, x, edge_index, edge_attr=None):
            return x.mean(0, keepdim=True).expand_as(x)

    x = torch.randn(NODES, STEPS, C)
    block = STMambaBlock(C, spatial=Mean(), temporal=None, dropout=0.0, norm="pre")
    batch = torch.zeros(NODES, dtype=torch.long)
    normed = block.norm_spatial(x)
    close(block(x, EDGES, batch=batch), x + normed.mean(0, keepdim=True), 1e-6)


def test_dropout_acts_on_what_a_phase_adds():
    x = torch.randn(NODES, STEPS, C)
    block = STMambaBlock(C, dropout=1.0, norm="pre")
    same(block(x, EDGES), x)
    assert (block.eval()(x, EDGES) != x).any()
    block = STMambaBlock(C, dropout=0.5)
    assert not torch.equal(block(x, EDGES), block(x, EDGES))
    block.eval()
    same(block(x, EDGES), block(x, EDGES))


def test_reset_parameters():
    block = STMambaBlock(C)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(7.0)
    block.reset_parameters()
    assert not any((parameter == 7.0).any() for parameter in block.parameters())
    assert (block.norm_spatial.weight == 1).all()
    assert torch.allclose(block.temporal.A_log.exp()[0], torch.arange(1.0, 17.0))


@pytest.mark.parametrize(
    "temporal", ["mamba", "attention", TemporalAttention(4, 2, position="sinusoidal")]
)
def test_gradcheck(temporal):
    block = STMambaBlock(4, d_state=2, num_heads=2, temporal=temporal, edge_dim=1).double().eval()
    x = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    edge_attr = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    edges = torch.tensor([[0, 1], [1, 0]])
    torch.autograd.gradcheck(lambda x, e: block(x, edges, e), (x, edge_attr))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_bfloat16_autocast(norm):
    block, x = randomized(norm=norm), torch.randn(NODES, STEPS, C)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = block.prefill(x, EDGES)
        y.float().square().mean().backward()
    assert state.ssm.dtype == torch.float32
    close(y.float(), block(x, EDGES), 5e-2)
    assert all(p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("spatial", ["gat", "attention", "dot"])
@pytest.mark.parametrize("temporal", ["mamba", "attention"])
def test_compiled_and_exported_equal_eager(spatial, temporal):
    block = randomized(spatial=spatial, temporal=temporal)
    x = torch.randn(NODES, STEPS, C)
    y = block(x, EDGES)
    close(torch.compile(block, fullgraph=True, backend="aot_eager")(x, EDGES), y, 1e-6)
    exported = torch.export.export(block, (x, EDGES)).module()
    other = 2.0 * x
    close(exported(other, EDGES), block(other, EDGES), 1e-6)


def test_compiled_dense():
    block = randomized()
    x = torch.randn(2, STEPS, NODES, C)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    close(compiled(x, EDGES), block(x, EDGES), 1e-6)


def flops(block: STMambaBlock, steps: int, edges: int) -> int:
    x = torch.randn(30, steps, C)
    edge_index = torch.arange(edges).remainder(30).expand(2, -1)
    edge_index = torch.stack([edge_index[0], (edge_index[1] * 7 + 1) % 30])
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        block(x, edge_index, torch.ones(edges, 2))
    return counter.get_total_flops()


def test_cost_is_linear_in_steps_and_edges():
    block = randomized(edge_dim=2, add_self_loops=False)
    slope = math.log2(flops(block, 128, 60) / flops(block, 64, 60))
    assert slope == pytest.approx(1.0, abs=0.02)
    counts = [flops(block, 8, edges) for edges in (60, 120, 180)]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0


def dirichlet(x, edge_index):
    return (x[edge_index[0]] - x[edge_index[1]]).square().sum(-1).mean().item()


@pytest.mark.parametrize("seed", range(5))
def test_residual_slows_over_smoothing(seed):
    torch.manual_seed(seed)
    nodes = 40
    edge_index = torch.randint(0, nodes, (2, 120))
    edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    x = torch.randn(nodes, 1, 16)
    residual = plain = x
    with torch.no_grad():
        for _ in range(16):
            block = STMambaBlock(16, temporal=None).eval()
            residual = block(residual, edge_index)
            plain = block.norm_spatial(block.spatial(plain, edge_index))
    start = dirichlet(x[:, 0], edge_index)
    assert dirichlet(residual[:, 0], edge_index) > 10 * dirichlet(plain[:, 0], edge_index)
    assert dirichlet(residual[:, 0], edge_index) < start


def test_bad_options():
    with pytest.raises(ValueError, match=r"channels \(6\).*heads \(4\)"):
        STMambaBlock(6)
    with pytest.raises(ValueError, match=r"'middle'.*'post' or 'pre'"):
        STMambaBlock(8, norm="middle")
    with pytest.raises(ValueError, match=r"'gan'.*'gat'"):
        STMambaBlock(8, spatial="gan")
    with pytest.raises(ValueError, match=r"'mumba'.*'mamba'"):
        STMambaBlock(8, temporal="mumba")


@pytest.mark.parametrize(
    ("x", "graph", "message"),
    [
        (torch.zeros(5, 6, 7), EDGES, r"C = 8 channels last.*\[5, 6, 7\]"),
        (torch.zeros(5, 8), EDGES, r"x\[N, T, C\].*\[5, 8\].*step"),
        (torch.zeros(1, 2, 3, 5, 8), EDGES, r"\[1, 2, 3, 5, 8\]"),
        (torch.zeros(3, 6, 8), EDGES, r"node 3.*3 nodes.*nodes come first"),
        (torch.zeros(1, 6, 3, 8), EDGES, r"node 3.*3 nodes"),
        (torch.zeros(5, 6, 8), torch.zeros(6, 6), r"5 nodes.*\[6, 6\]"),
        (torch.zeros(5, 6, 8), torch.zeros(5, 6), r"square.*\[5, 6\]"),
        (torch.zeros(5, 6, 8), EDGES.float(), r"int64, got torch.float32"),
        (torch.zeros(5, 6, 8), None, "no graph was given"),
    ],
)
def test_bad_input(x, graph, message):
    with pytest.raises(ValueError, match=message):
        STMambaBlock(8)(x, graph)


def test_bad_masks_and_operators():
    block, x = STMambaBlock(8), torch.zeros(5, 6, 8)
    with pytest.raises(ValueError, match=r"\[5, 6\].*got \[6, 5\]"):
        block(x, EDGES, mask=torch.ones(6, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"\[2, 6, 5\].*got \[2, 6\]"):
        block(torch.zeros(2, 6, 5, 8), EDGES, mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"boolean.*torch.float32"):
        block(x, EDGES, mask=torch.ones(5, 6))
    with pytest.raises(ValueError, match=r"keep the shape.*\[5, 6, 8\] into \[5, 6, 16\]"):
        STMambaBlock(8, spatial=SpatialGAT(8, 8, heads=2))(x, EDGES)


def test_transformers_with_residuals_of_their_own_are_refused():
    with pytest.raises(ValueError, match=r"spatial=SpatialTransformer.*take SpatialAttention"):
        STMambaBlock(C, spatial=SpatialTransformer(C, 2))
    with pytest.raises(ValueError, match=r"temporal=TemporalTransformer.*take TemporalFactorized"):
        STMambaBlock(C, temporal=TemporalTransformer(C, 2, batch_first=True))


def test_repr():
    block = STMambaBlock(8, spatial=SpatialAttention(8), norm="pre")
    assert str(block) == (
        "STMambaBlock(8, spatial=SpatialAttention(8, heads=4, neighbors_only=False), "
        "temporal=TemporalMamba(8, d_state=16, d_conv=4, expand=2), norm='pre')"
    )
