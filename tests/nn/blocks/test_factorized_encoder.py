import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data

from pyg_stmamba.nn.blocks.factorized_encoder import FactorizedEncoder
from tests import laws
from tests.laws import close, same
from tests.nn.encoder_layer_oracle import randomized as randomize
from tests.nn.encoder_layer_oracle import torch_layer

D, HEADS = 12, 3
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])  # 0 -> 2 has no way back


def randomized(**options) -> FactorizedEncoder:
    return randomize(FactorizedEncoder(D, HEADS, 2, 1, **({"max_len": 4} | options))).eval()


def by_loops(encoder: FactorizedEncoder, x):
    """Video by video and frame by frame, with layers of torch."""

    def encode(layers, norm, token, rows):
        if token is not None:
            rows = torch.cat([token[None], rows])
        for layer in layers:
            rows = torch_layer(layer, HEADS, norm_first=True)(rows[None])[0]
        rows = norm(rows)
        return rows.mean(0) if token is None else rows[0]

    vectors, frames = [], []
    for video in x:
        each = [
            encode(encoder.spatial.layers, encoder.norm_spatial, encoder.token_space, frame)
            for frame in video
        ]
        frames.append(torch.stack(each))
        placed = frames[-1] + encoder.position.table.embedding.weight[: len(video)]
        vectors.append(
            encode(encoder.temporal.layers, encoder.norm_temporal, encoder.token_time, placed)
        )
    return torch.stack(vectors), torch.stack(frames)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_against_torch_by_loops(pool):
    encoder = randomized(pool=pool)
    x = torch.randn(2, 4, 5, D, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    y, frames = encoder(x, return_frames=True)
    expected, theirs = by_loops(encoder, other)
    close(y, expected, 1e-5)
    close(frames, theirs, 1e-5)
    same(encoder(x), y)

    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    (expected * weight).sum().backward()
    close(x.grad, other.grad, 1e-5)


def test_positions():
    x = torch.randn(2, 4, 5, D)
    for max_len, apart in ((None, False), (4, True), (3, True)):
        encoder = randomized(max_len=max_len)
        moved = (encoder(x) - encoder(x.flip(1))).abs().max()
        assert (moved > 1e-3) == apart
        assert moved < 1e-5 or apart
    table = encoder.position.table.embedding.weight  # three positions for four frames
    stretched = nn.functional.interpolate(table.t()[None], 4, mode="linear")[0].t()
    fitting = randomized()
    fitting.load_state_dict(encoder.state_dict() | {"position.table.embedding.weight": stretched})
    close(encoder(x), fitting(x), 1e-6)


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("neighbors_only", [False, True])
def test_all_forms_of_input(pool, neighbors_only):
    encoder = randomized(pool=pool, neighbors_only=neighbors_only)
    x = torch.randn(3, 4, 5, D)
    y, frames = encoder(x, EDGES, return_frames=True)
    assert y.shape == (3, D)
    assert frames.shape == (3, 4, D)
    nodes_first = x.permute(2, 0, 1, 3)
    for ours, expected in zip(
        encoder(nodes_first, EDGES, nodes_first=True, return_frames=True), (y, frames)
    ):
        close(ours, expected, 1e-6)
    for b in range(3):
        data = Data(x=nodes_first[:, b], edge_index=EDGES)
        for ours, expected in zip(encoder(data, return_frames=True), (y, frames)):
            close(ours, expected[b : b + 1], 1e-6)
    assert torch.equal(encoder(x, EDGES.flip(0)), y) != neighbors_only


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("neighbors_only", [False, True])
@pytest.mark.parametrize("windows", [None, 2])
def test_batch_is_graph_by_graph(pool, neighbors_only, windows):
    encoder = randomized(pool=pool, neighbors_only=neighbors_only)
    graphs = []
    for nodes in (5, 1, 4):
        shape = (nodes, 4, D) if windows is None else (nodes, windows, 4, D)
        edges = torch.randint(0, nodes, (2, 2 * nodes))
        graphs.append(Data(x=torch.randn(shape), edge_index=edges))
    y, frames = encoder(Batch.from_data_list(graphs), return_frames=True)
    alone = [encoder(graph, return_frames=True) for graph in graphs]
    for i, (one, of_frames) in enumerate(alone):
        close(y[i], one if windows else one[0], 1e-6)
        close(frames[i], of_frames if windows else of_frames[0], 1e-6)


def test_graphs_without_nodes():
    encoder = randomized()
    graphs = [Data(x=torch.randn(n, 4, D)) for n in (2, 0, 1, 0)]
    y = encoder(Batch.from_data_list(graphs))
    assert y.shape == (4, D)
    assert y.isfinite().all()
    close(y[:1], encoder(graphs[0]), 1e-6)
    close(y[2:3], encoder(graphs[2]), 1e-6)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_masks(pool):
    encoder = randomized(pool=pool)
    x = torch.randn(3, 4, 5, D)
    mask = torch.rand(3, 4, 5) > 0.4
    mask[0] = False
    mask[1, 2] = False  # a frame without anything
    y, frames = (out.detach() for out in encoder(x, mask=mask, return_frames=True))
    for junk in (1e4, float("nan"), float("inf")):
        same(encoder(x.masked_fill(~mask.unsqueeze(-1), junk), mask=mask), y)
    leaf = x.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
    encoder(leaf, mask=mask).square().sum().backward()
    assert (leaf.grad[~mask] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())
    close(encoder(x, mask=torch.ones_like(mask)), encoder(x), 1e-6)
    # Whatever the vector of the frame that nobody saw, it is not looked at.
    frames[1, 2] = 1e3
    close(encoder._over_time(frames, mask.any(-1)), y, 1e-6)
    if pool == "mean":
        assert (y[0] == 0).all()
        tokens = encoder.norm_spatial(encoder.spatial(x.masked_fill(~mask.unsqueeze(-1), 0.0)))
        close(frames[1, 0], tokens[1, 0, mask[1, 0]].mean(0), 1e-6)


def test_samples_are_independent():
    encoder, x = randomized(), torch.randn(4, 3, 5, D)
    y, other = encoder(x), x.clone()
    other[0] = 5.0 - 2.0 * x[0]
    same(encoder(other)[1:], y[1:])
    assert not torch.equal(encoder(other)[0], y[0])


@pytest.mark.parametrize(("steps", "nodes"), [(2, 3), (4, 4), (3, 70), (70, 3), (16, 9)])
def test_work_of_the_attention_maps(steps, nodes):
    """4 D (T N^2 + T^2) for a pair of layers; a class token makes one more of N and of T."""
    x = torch.randn(1, steps, nodes, D)
    for pool, more in (("mean", 0), ("cls", 1)):
        encoder = FactorizedEncoder(D, HEADS, 1, 1, pool=pool).eval()
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            encoder(x)
        expected = 4 * D * (steps * (nodes + more) ** 2 + (steps + more) ** 2)
        assert counter.get_flop_counts()["Global"][torch.ops.aten.bmm] == expected


def test_initialization():
    encoder = FactorizedEncoder(1024, 4, 1, 1)
    for token in (encoder.token_space, encoder.token_time):
        assert token.std().item() == pytest.approx(0.02, rel=0.1)
    position = FactorizedEncoder(1024, 4, 1, 1, max_len=12).position.table.embedding.weight
    assert position.std().item() == pytest.approx(0.5, rel=0.2)  # frames have a variance of one
    kept = encoder.token_time.clone()
    encoder.reset_parameters()
    assert not torch.equal(encoder.token_time, kept)
    assert FactorizedEncoder(D, pool="mean").token_time is None


def test_copies_inputs_and_layouts():
    x, encoder = torch.randn(2, 4, 5, D), randomized()
    laws.copies_are_equal(encoder, lambda op: op(x))
    laws.inputs_stay_untouched(encoder, x, mask=torch.rand(2, 4, 5) > 0.5)
    close(encoder(x.transpose(0, -1).contiguous().transpose(0, -1)), encoder(x), 1e-6)
    wide = x[:, :1].expand_as(x)
    close(encoder(wide), encoder(wide.contiguous()), 1e-6)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_gradients_in_double_precision(pool):
    encoder = FactorizedEncoder(4, 2, 1, 1, mlp_ratio=1, pool=pool, max_len=3).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, x)


def test_bfloat16_autocast_is_finite():
    encoder, x = randomized(), torch.randn(2, 4, 5, D, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = encoder(x)
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert (y - encoder(x)).abs().max() < 0.1


def test_dropout_in_training_only():
    encoder, x = randomized(dropout=0.5).train(), torch.randn(2, 4, 5, D)
    assert not torch.equal(encoder(x), encoder(x))
    encoder.eval()
    same(encoder(x), encoder(x))


def test_bad_options_and_inputs():
    with pytest.raises(ValueError, match="unknown pool 'max'; choose 'cls' or 'mean'"):
        FactorizedEncoder(D, HEADS, pool="max")
    with pytest.raises(ValueError, match=r"\(12\) must be divisible by heads \(5\)"):
        FactorizedEncoder(D, 5)
    with pytest.raises(ValueError, match=r"C = 12 channels last, got .* \[2, 4, 5, 3\]"):
        randomized()(torch.randn(2, 4, 5, 3))
    with pytest.raises(ValueError, match="along the edges, but edge_index is None"):
        randomized(neighbors_only=True)(torch.randn(2, 4, 5, D))


def test_repr():
    expected = "FactorizedEncoder(12, num_heads=3, spatial_layers=2, temporal_layers=1, pool='cls')"
    assert str(randomized()) == expected
