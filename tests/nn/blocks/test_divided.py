import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data

from pyg_stmamba.nn.blocks.divided import DividedSpaceTimeBlock
from tests import laws
from tests.laws import close, same

D, HEADS = 12, 3
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])  # 0 -> 2 has no way back


def randomized(**options) -> DividedSpaceTimeBlock:
    block = DividedSpaceTimeBlock(D, HEADS, **options)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return block.eval()


def hugging_face(block: DividedSpaceTimeBlock, frames: int, columns: int) -> nn.Module:
    """A layer of Hugging Face's TimeSformer with the weights of `block`."""
    timesformer = pytest.importorskip("transformers.models.timesformer.modeling_timesformer")
    config = timesformer.TimesformerConfig(
        image_size=columns,
        patch_size=1,
        num_frames=frames,
        hidden_size=D,
        num_attention_heads=HEADS,
        intermediate_size=4 * D,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attention_type="divided_space_time",
    )
    layer = timesformer.TimesformerLayer(config, 0)
    names = {
        "temporal_layernorm": block.norm_temporal,
        "temporal_attention.attention.qkv": block.temporal.in_proj,
        "temporal_attention.output.dense": block.temporal.out_proj,
        "temporal_dense": block.temporal_fc,
        "layernorm_before": block.norm_spatial,
        "attention.attention.qkv": block.spatial.in_proj,
        "attention.output.dense": block.spatial.out_proj,
        "layernorm_after": block.norm_feed_forward,
        "intermediate.dense": block.feed_forward.linear1,
        "output.dense": block.feed_forward.linear2,
    }
    state = {
        f"{theirs}.{name}": value
        for theirs, module in names.items()
        for name, value in module.state_dict().items()
    }
    layer.load_state_dict(state, strict=True)
    return layer


def vision_layer(block: DividedSpaceTimeBlock) -> nn.TransformerEncoderLayer:
    """A layer of a Vision Transformer with the spatial weights of `block`."""
    layer = nn.TransformerEncoderLayer(
        D, HEADS, 4 * D, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.spatial.in_proj.weight)
        layer.self_attn.in_proj_bias.copy_(block.spatial.in_proj.bias)
    layer.self_attn.out_proj.load_state_dict(block.spatial.out_proj.state_dict())
    layer.norm1.load_state_dict(block.norm_spatial.state_dict())
    layer.norm2.load_state_dict(block.norm_feed_forward.state_dict())
    layer.linear1.load_state_dict(block.feed_forward.linear1.state_dict())
    layer.linear2.load_state_dict(block.feed_forward.linear2.state_dict())
    return layer.eval()


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # the small one feels the eps of the norms
def test_against_hugging_face(scale):
    block = randomized()
    layer = hugging_face(block, frames=3, columns=2)
    x = (scale * torch.randn(2, 3, 6, D)).requires_grad_()  # 3 rows of 2 patches
    cls = (scale * torch.randn(2, 1, D)).requires_grad_()
    tokens = torch.cat([cls, x.transpose(1, 2).flatten(1, 2)], 1).detach().requires_grad_()
    y, token = block(x, cls=cls)
    assert token.shape == cls.shape
    found = torch.cat([token, y.transpose(1, 2).flatten(1, 2)], 1)
    expected = layer(tokens)[0]
    close(found, expected, 1e-5)

    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    close(cls.grad / tokens.grad.std(), tokens.grad[:, :1] / tokens.grad.std(), 1e-5)
    theirs = tokens.grad[:, 1:].unflatten(1, (6, 3)).transpose(1, 2)
    close(x.grad / theirs.std(), theirs / theirs.std(), 1e-5)
    pairs = [
        (block.temporal_fc.weight, layer.temporal_dense.weight),
        (block.temporal_fc.bias, layer.temporal_dense.bias),
        (block.temporal.in_proj.weight, layer.temporal_attention.attention.qkv.weight),
        (block.spatial.in_proj.weight, layer.attention.attention.qkv.weight),
        (block.feed_forward.linear1.weight, layer.intermediate.dense.weight),
        (block.norm_spatial.weight, layer.layernorm_before.weight),
    ]
    for ours, their in pairs:
        close(ours.grad, their.grad, 3e-5)


def by_loops(block: DividedSpaceTimeBlock, x, space_first: bool, causal: bool = False):
    """The three branches patch by patch, frame by frame, on x[B, T, N, D]."""

    def attention(op, x, mask=None):
        other = nn.MultiheadAttention(D, HEADS, batch_first=True)
        with torch.no_grad():
            other.in_proj_weight.copy_(op.in_proj.weight)
            other.in_proj_bias.copy_(op.in_proj.bias)
        other.out_proj.load_state_dict(op.out_proj.state_dict())
        return other(x, x, x, attn_mask=mask, need_weights=False)[0]

    future = torch.ones(x.size(1), x.size(1)).triu(1).bool() if causal else None

    def over_time(x):
        parts = [attention(block.temporal, block.norm_temporal(s), future) for s in x.unbind(2)]
        return x + block.temporal_fc(torch.stack(parts, 2))

    def over_space(x):
        parts = [attention(block.spatial, block.norm_spatial(f)) for f in x.unbind(1)]
        return x + torch.stack(parts, 1)

    x = over_time(over_space(x)) if space_first else over_space(over_time(x))
    return x + block.feed_forward(block.norm_feed_forward(x))


@pytest.mark.parametrize("order", ["time_first", "space_first"])
@pytest.mark.parametrize("causal", [False, True])
def test_against_loops(order, causal):
    block = randomized(order=order, causal=causal)
    x = torch.randn(2, 4, 5, D)
    close(block(x), by_loops(block, x, order == "space_first", causal), 1e-5)
    other = by_loops(block, x, order != "space_first", causal)
    assert (block(x) - other).abs().max() > 1e-2


@pytest.mark.parametrize("order", ["time_first", "space_first"])
def test_at_first_it_is_a_vision_transformer_on_each_frame(order):
    block = DividedSpaceTimeBlock(D, HEADS, order=order).eval()
    layer = vision_layer(block)
    x, cls = torch.randn(2, 3, 5, D), torch.randn(2, 1, D)
    frames = torch.stack([layer(frame) for frame in x.unbind(1)], 1)
    close(block(x), frames, 1e-6)

    # The class token looks at each frame on its own; the MLP then sees the mean of the changes.
    y, token = block(x, cls=cls)
    with_token = [torch.cat([cls, frame], 1) for frame in x.unbind(1)]
    frames = torch.stack([layer(frame)[:, 1:] for frame in with_token], 1)
    close(y, frames, 1e-6)
    changes = [layer._sa_block(layer.norm1(f), None, None)[:, :1] for f in with_token]
    seen = cls + torch.stack(changes).mean(0)
    close(token, seen + layer._ff_block(layer.norm2(seen)), 1e-6)


def test_initialization():
    block = DividedSpaceTimeBlock(64, 4)
    for _ in range(2):
        assert (block.temporal_fc.weight == 0).all()
        assert (block.temporal_fc.bias == 0).all()
        assert (block.temporal.in_proj.weight != 0).all()
        with torch.no_grad():
            block.temporal_fc.weight.fill_(1)
            block.temporal_fc.bias.fill_(1)
        block.reset_parameters()
    block = DividedSpaceTimeBlock(64, 4, zero_init_temporal=False)
    assert (block.temporal_fc.weight != 0).all()
    assert (block.temporal_fc.bias != 0).all()


def test_who_sees_whom():
    """Exactly one's own time and the own frame of those that one saw, and the class token all."""
    block = randomized()
    x = torch.randn(2, 4, 3, D, requires_grad=True)
    block(x)[0, 1, 2].sum().backward()
    moved = x.grad.ne(0).any(-1)
    assert moved[0].all()  # everything in two moves
    assert not moved[1].any()  # the other sample never

    for order, first in (("time_first", "space"), ("space_first", "time")):
        block = randomized(order=order)
        nn.init.zeros_((block.spatial.out_proj if first == "space" else block.temporal_fc).weight)
        x = torch.randn(1, 4, 3, D, requires_grad=True)
        block(x)[0, 1, 2].sum().backward()
        moved, expected = x.grad[0].ne(0).any(-1), torch.zeros(4, 3, dtype=torch.bool)
        if first == "space":
            expected[:, 2] = True  # the own series
        else:
            expected[1] = True  # the own frame
        assert torch.equal(moved, expected)


def test_the_class_token_takes_no_part_in_time():
    block = randomized()
    nn.init.zeros_(block.spatial.out_proj.weight)
    x, cls = torch.randn(2, 4, 3, D), torch.randn(2, 1, D)
    y, token = block(x, cls=cls)
    same(block(x, cls=-cls)[0], y)
    same(block(-x, cls=cls)[1], token)


@pytest.mark.parametrize("neighbors_only", [False, True])
@pytest.mark.parametrize("with_cls", [False, True])
def test_all_forms_of_input(neighbors_only, with_cls):
    block = randomized(neighbors_only=neighbors_only)
    x, cls = torch.randn(3, 4, 5, D), torch.randn(3, 1, D) if with_cls else None
    out = block(x, EDGES, cls=cls)
    y, token = out if with_cls else (out, None)
    assert y.shape == x.shape
    nodes_first = x.permute(2, 0, 1, 3)
    out = block(nodes_first, EDGES, cls=cls[None] if with_cls else None, nodes_first=True)
    close(out[0] if with_cls else out, y.permute(2, 0, 1, 3), 1e-6)
    if with_cls:
        close(out[1], token[None], 1e-6)
    for b in range(3):
        out = block(nodes_first[:, b], EDGES, cls=cls[b : b + 1] if with_cls else None)
        close(out[0] if with_cls else out, y[b].transpose(0, 1), 1e-6)
        if with_cls:
            close(out[1], token[b : b + 1], 1e-6)
    adj = torch.zeros(5, 5)
    adj[EDGES[1], EDGES[0]] = 1.0
    out = block(x, adj, cls=cls)
    same(out[0] if with_cls else out, y)
    backwards = block(x, EDGES.flip(0), cls=cls)
    backwards = backwards[0] if with_cls else backwards
    assert torch.equal(backwards, y) != neighbors_only


@pytest.mark.parametrize("neighbors_only", [False, True])
@pytest.mark.parametrize("windows", [None, 2])
def test_batch_is_graph_by_graph(neighbors_only, windows):
    block = randomized(neighbors_only=neighbors_only)
    graphs = []
    for nodes in (5, 1, 4):
        shape = (nodes, 4, D) if windows is None else (nodes, windows, 4, D)
        edges = torch.randint(0, nodes, (2, 2 * nodes))
        graphs.append(Data(x=torch.randn(shape), edge_index=edges))
    batch = Batch.from_data_list(graphs)
    close(block(batch), torch.cat([block(graph) for graph in graphs]), 1e-6)

    cls = torch.randn(3, *batch.x.shape[1:-2], 1, D)
    y, token = block(batch, cls=cls)
    alone = [block(graph, cls=cls[i : i + 1]) for i, graph in enumerate(graphs)]
    close(y, torch.cat([one for one, _ in alone]), 1e-6)
    close(token, torch.cat([one for _, one in alone]), 1e-6)


def test_neighbors_only():
    block = randomized(neighbors_only=True)
    x = torch.randn(5, 4, D)
    laws.order_does_not_matter(block, x, EDGES)
    laws.lonely_nodes_are_harmless(block, x)
    laws.only_near_nodes_matter(block, x, EDGES)
    everyone = torch.cartesian_prod(torch.arange(5), torch.arange(5)).t()
    full = DividedSpaceTimeBlock(D, HEADS).eval()
    full.load_state_dict(block.state_dict())
    close(block(x, everyone), full(x), 1e-6)
    cls = torch.randn(1, 1, D)
    for ours, theirs in zip(block(x, everyone, cls=cls), full(x, cls=cls)):
        close(ours, theirs, 1e-6)
    with pytest.raises(ValueError, match="along the edges, but edge_index is None"):
        block(x)


@pytest.mark.parametrize("order", ["time_first", "space_first"])
def test_causal(order):
    block = randomized(order=order, causal=True)
    assert block.causal

    def op(x, mask=None):
        return block(x, nodes_first=True)

    laws.the_future_moves_nothing(op, torch.randn(5, 2, 4, D))
    laws.the_past_moves_the_present(op, torch.randn(5, 2, 4, D))
    with pytest.raises(ValueError, match="takes no class token"):
        block(torch.randn(2, 4, 3, D), cls=torch.randn(2, 1, D))
    assert not randomized().causal


@pytest.mark.parametrize("causal", [False, True])
def test_masks(causal):
    block = randomized(causal=causal)
    x = torch.randn(3, 4, 5, D)
    mask = torch.rand(3, 4, 5) > 0.4
    mask[0] = False  # a window of which nothing is known
    mask[1, :, 2] = False
    y = block(x, mask=mask)
    assert (y[~mask] == 0).all()
    for junk in (1e4, float("nan"), float("inf")):
        same(block(x.masked_fill(~mask.unsqueeze(-1), junk), mask=mask), y)
    leaf = x.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
    block(leaf, mask=mask).square().sum().backward()
    assert (leaf.grad[~mask] == 0).all()
    assert all(p.grad.isfinite().all() for p in block.parameters())
    same(block(x, mask=torch.ones_like(mask)), block(x))
    late = torch.zeros_like(mask)
    late[:, :2] = True
    close(block(x, mask=late)[:, :2], block(x[:, :2]), 1e-6)

    data = Data(x=x[1].transpose(0, 1), x_mask=mask[1].t())
    close(block(data), y[1].transpose(0, 1), 1e-6)


def test_a_masked_class_token_is_finite():
    block, cls = randomized(), torch.randn(2, 1, D)
    mask = torch.zeros(2, 4, 3, dtype=torch.bool)
    y, token = block(torch.full((2, 4, 3, D), torch.nan), mask=mask, cls=cls)
    assert (y == 0).all()
    assert token.isfinite().all()


def test_samples_are_independent():
    block = randomized()
    x, cls = torch.randn(4, 3, 5, D), torch.randn(4, 1, D)
    y, token = block(x, cls=cls)
    other, other_cls = x.clone(), cls.clone()
    other[0], other_cls[0] = 5.0 - 2.0 * x[0], -cls[0]
    moved, moved_token = block(other, cls=other_cls)
    same(moved[1:], y[1:])
    same(moved_token[1:], token[1:])
    assert not torch.equal(moved[0], y[0])
    assert not torch.equal(moved_token[0], token[0])


@pytest.mark.parametrize(("steps", "nodes"), [(2, 3), (4, 4), (3, 70), (70, 3), (16, 9)])
def test_work_of_the_attention_maps(steps, nodes):
    """4 D T N (T + N), and with a class token 4 D (N T^2 + T (N + 1)^2)."""
    block, x = randomized(), torch.randn(1, steps, nodes, D)
    for cls, expected in (
        (None, 4 * D * steps * nodes * (steps + nodes)),
        (torch.randn(1, 1, D), 4 * D * (nodes * steps**2 + steps * (nodes + 1) ** 2)),
    ):
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            block(x, cls=cls)
        assert counter.get_flop_counts()["Global"][torch.ops.aten.bmm] == expected


@pytest.mark.parametrize("with_cls", [False, True])
def test_a_dropped_path_is_the_input(with_cls):
    block = randomized(drop_path=0.5).train()
    x, cls = torch.randn(200, 2, 3, D), torch.randn(200, 1, D)
    out = block(x, cls=cls) if with_cls else block(x)
    y = out[0] if with_cls else out
    stayed = (y == x).flatten(1).all(1)
    # All three branches of a sample are dropped with probability 1/8, within three errors.
    assert stayed.float().mean().item() == pytest.approx(1 / 8, abs=0.07)
    if with_cls:  # the token has no branch in time
        kept = (out[1] == cls).flatten(1).all(1)
        assert (kept | ~stayed).all()
        assert kept.float().mean().item() == pytest.approx(1 / 4, abs=0.095)
    block.eval()
    plain = randomized()
    plain.load_state_dict(block.state_dict())
    same(block(x), plain(x))


def test_dropout_in_training_only():
    block, x = randomized(dropout=0.5).train(), torch.randn(2, 4, 3, D)
    assert not torch.equal(block(x), block(x))
    block.eval()
    same(block(x), block(x))


def test_copies_inputs_and_layouts():
    x, cls = torch.randn(2, 4, 5, D), torch.randn(2, 1, D)
    block = randomized()
    laws.copies_are_equal(block, lambda op: op(x, cls=cls)[0])
    laws.layout_does_not_matter(block, x)
    given = [x.clone(), cls.clone(), torch.rand(2, 4, 5) > 0.5]
    kept = [t.clone() for t in given]
    block(given[0], mask=given[2], cls=given[1])[1].sum().backward()
    for before, after in zip(kept, given):
        same(after, before)


def test_gradients_in_double_precision():
    block = DividedSpaceTimeBlock(4, 2, mlp_ratio=1, zero_init_temporal=False).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    cls = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, cls: block(x, cls=cls), (x, cls))


def test_bfloat16_autocast_is_finite():
    block = randomized(neighbors_only=True)
    x, cls = torch.randn(2, 4, 5, D, requires_grad=True), torch.randn(2, 1, D)
    with torch.autocast("cpu", torch.bfloat16):
        y, token = block(x, EDGES, cls=cls)
    (y.float().square().sum() + token.float().square().sum()).backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    exact, _ = block(x, EDGES, cls=cls)
    assert (y - exact).abs().max() < 0.1 * exact.abs().max()


def test_bad_options_and_inputs():
    with pytest.raises(ValueError, match="'both'; choose 'time_first' or 'space_first'"):
        DividedSpaceTimeBlock(D, HEADS, order="both")
    with pytest.raises(ValueError, match=r"\(12\) must be divisible by heads \(5\)"):
        DividedSpaceTimeBlock(D, 5)
    with pytest.raises(ValueError, match="a probability below 1, got 1"):
        DividedSpaceTimeBlock(D, HEADS, drop_path=1.5)
    block, x = randomized(), torch.randn(2, 4, 5, D)
    with pytest.raises(ValueError, match=r"C = 12 channels last, got .* \[2, 4, 5, 3\]"):
        block(x[..., :3])
    for cls in (torch.randn(2, D), torch.randn(3, 1, D), torch.randn(2, 4, D)):
        with pytest.raises(ValueError, match=r"expected class tokens \[B, 1, 12\]"):
            block(x, cls=cls)
    nodes, batch = torch.randn(5, 4, D), torch.tensor([0, 0, 1, 1, 2])
    with pytest.raises(ValueError, match=r"are \[2, 1, 12\], but should be \[3, 1, 12\]"):
        block(nodes, batch=batch, cls=torch.randn(2, 1, D))


def test_repr():
    expected = (
        "DividedSpaceTimeBlock(12, num_heads=3, order='time_first', causal=False, "
        "neighbors_only=False)"
    )
    assert str(DividedSpaceTimeBlock(12, 3)) == expected
