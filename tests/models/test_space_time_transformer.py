import copy

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data

from pyg_stmamba.models.space_time_transformer import SpaceTimeTransformer
from tests import laws
from tests.laws import close, same
from tests.nn.encoder_layer_oracle import randomized

D, HEADS = 12, 3
TYPES = ("divided", "joint", "space_only", "factorized_encoder")
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])  # 0 -> 2 has no way back
VIDEO = {"patch_size": 2, "image_size": (4, 6), "num_frames": 3}


def build(in_channels=2, **options) -> SpaceTimeTransformer:
    return randomized(SpaceTimeTransformer(in_channels, D, HEADS, 2, **options)).eval()


def graphs(*sizes, in_channels=2, steps=4) -> list[Data]:
    return [
        Data(
            x=torch.randn(nodes, steps, in_channels),
            edge_index=torch.randint(0, max(nodes, 1), (2, 2 * nodes)),
        )
        for nodes in sizes
    ]


def hugging_face(model: SpaceTimeTransformer, attention_type: str) -> nn.Module:
    """Hugging Face's TimeSformer with the weights of `model`, made for 2 x 2 patches."""
    timesformer = pytest.importorskip("transformers.models.timesformer.modeling_timesformer")
    config = timesformer.TimesformerConfig(
        image_size=4,
        patch_size=2,
        num_channels=3,
        num_frames=3,
        hidden_size=D,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=4 * D,
        attention_type=attention_type,
        num_labels=5,
    )
    other = timesformer.TimesformerForVideoClassification(config)
    ours = model.state_dict()
    state = {
        "timesformer.embeddings.cls_token": ours["position.cls"][None, None],
        "timesformer.embeddings.position_embeddings": ours["position.space.weight"][None],
        "timesformer.embeddings.time_embeddings": ours["position.time.table.embedding.weight"][
            None
        ],
    }
    names = {
        "embed.projection": "timesformer.embeddings.patch_embeddings.projection",
        "norm": "timesformer.layernorm",
        "head": "classifier",
    }
    for layer in range(2):
        start, end = f"encoder.layers.{layer}", f"timesformer.encoder.layer.{layer}"
        names |= {
            f"{start}.norm_temporal": f"{end}.temporal_layernorm",
            f"{start}.temporal.in_proj": f"{end}.temporal_attention.attention.qkv",
            f"{start}.temporal.out_proj": f"{end}.temporal_attention.output.dense",
            f"{start}.temporal_fc": f"{end}.temporal_dense",
            f"{start}.norm_spatial": f"{end}.layernorm_before",
            f"{start}.spatial.in_proj": f"{end}.attention.attention.qkv",
            f"{start}.spatial.out_proj": f"{end}.attention.output.dense",
            f"{start}.norm_feed_forward": f"{end}.layernorm_after",
            f"{start}.feed_forward.linear1": f"{end}.intermediate.dense",
            f"{start}.feed_forward.linear2": f"{end}.output.dense",
        }
    for mine, theirs in names.items():
        for kind in ("weight", "bias"):
            state[f"{theirs}.{kind}"] = ours[f"{mine}.{kind}"]
    other.load_state_dict(state, strict=True)
    return other.eval()


def test_against_hugging_face():
    model = build(3, num_classes=5, patch_size=2, image_size=4, num_frames=3)
    other = hugging_face(model, "divided_space_time")
    video = torch.randn(2, 3, 3, 4, 4)
    expected = other(pixel_values=video).logits
    close(model(video), expected, 1e-5)
    model(video).square().sum().backward()
    expected.square().sum().backward()
    pairs = [
        (model.position.cls.grad, other.timesformer.embeddings.cls_token.grad[0, 0]),
        (
            model.position.space.weight.grad,
            other.timesformer.embeddings.position_embeddings.grad[0],
        ),
        (
            model.position.time.table.embedding.weight.grad,
            other.timesformer.embeddings.time_embeddings.grad[0],
        ),
        (
            model.embed.projection.weight.grad,
            other.timesformer.embeddings.patch_embeddings.projection.weight.grad,
        ),
    ]
    for ours, theirs in pairs:
        close(ours / theirs.std(), theirs / theirs.std(), 1e-4)


@pytest.mark.parametrize("attention_type", TYPES)
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_classes_of_videos(attention_type, pool):
    model = build(3, attention_type=attention_type, pool=pool, num_classes=5, **VIDEO)
    video = torch.randn(4, 3, 3, 4, 6)
    scores = model(video)
    assert scores.shape == (4, 5)
    other = video.clone()
    other[0] = 5.0 - 2.0 * video[0]
    same(model(other)[1:], scores[1:])  # no sample sees another
    assert not torch.equal(model(other)[0], scores[0])
    features = build(3, attention_type=attention_type, pool=pool, **VIDEO)(video)
    assert features.shape == (4, D)


@pytest.mark.parametrize("attention_type", TYPES)
def test_the_order_of_the_frames(attention_type):
    model = build(1, attention_type=attention_type, pool="mean", num_classes=5, **VIDEO)
    video = torch.randn(4, 3, 1, 4, 6)
    moved = (model(video.flip(1)) - model(video)).abs().max()
    if attention_type == "space_only":  # frames in a bag
        assert moved < 1e-5
    else:
        assert moved > 1e-3


@pytest.mark.parametrize("attention_type", TYPES)
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_classes_of_graphs(attention_type, pool):
    model = build(attention_type=attention_type, pool=pool, num_classes=5)
    parts = graphs(5, 1, 4)
    scores = model(Batch.from_data_list(parts))
    assert scores.shape == (3, 5)
    close(scores, torch.cat([model(part) for part in parts]), 1e-6)
    for part in parts:  # the same nodes as windows, dense and nodes first
        windows = torch.stack([part.x, -part.x], 1)
        dense = model(windows.permute(1, 2, 0, 3))
        close(dense[:1], model(part), 1e-6)
        close(model(windows, nodes_first=True), dense, 1e-6)
    order = torch.tensor([3, 1, 0, 4, 2])
    close(model(parts[0].x[order]), model(parts[0].x), 1e-6)


@pytest.mark.parametrize("attention_type", TYPES)
def test_empty_graphs(attention_type):
    model = build(attention_type=attention_type, num_classes=5)
    parts = graphs(3, 0, 2, 0)
    scores = model(Batch.from_data_list(parts))
    assert scores.shape == (4, 5)
    assert scores.isfinite().all()
    close(scores[2:3], model(parts[2]), 1e-6)


@pytest.mark.parametrize("attention_type", TYPES[:3])
@pytest.mark.parametrize("pool", ["cls", None])
@pytest.mark.parametrize("horizon", [None, 6])
def test_outputs_of_nodes(attention_type, pool, horizon):
    model = build(attention_type=attention_type, pool=pool, out_channels=3, horizon=horizon)
    parts, steps = graphs(5, 1, 4), horizon or 4
    y = model(Batch.from_data_list(parts))
    assert y.shape == (10, steps, 3)
    close(y, torch.cat([model(part) for part in parts]), 1e-6)
    x = torch.randn(2, 4, 5, 2)
    dense = model(x)
    assert dense.shape == (2, steps, 5, 3)
    close(model(x.permute(2, 0, 1, 3), nodes_first=True), dense.permute(2, 0, 1, 3), 1e-6)
    close(model(x[1].transpose(0, 1)), dense[1].transpose(0, 1), 1e-6)


def test_the_horizon_is_read_from_the_last_step():
    model = build(attention_type="space_only", pool=None, out_channels=3, horizon=6)
    x = torch.randn(5, 4, 2)
    other = x.clone()
    other[:, :-1] = 0.0
    same(model(other), model(x))
    h = model.norm(model.encoder(model.embed(x))[0])[:, -1]
    expected = h @ model.head.weight.t() + model.head.bias
    close(model(x), expected.reshape(5, 6, 3), 1e-6)


@pytest.mark.parametrize("horizon", [None, 5])
def test_outputs_of_pixels(horizon):
    model = build(2, pool=None, out_channels=3, horizon=horizon, **VIDEO)
    video = torch.randn(2, 3, 2, 4, 6)
    y = model(video)
    assert y.shape == (2, horizon or 3, 3, 4, 6)
    # A linear map of tokens to patches, transposed, is a transposed convolution.
    other = build(2, pool=None, **VIDEO)
    other.load_state_dict({k: v for k, v in model.state_dict().items() if "head" not in k})
    tokens = other(video)
    assert tokens.shape == (2, 3, 6, D)
    fields = tokens if horizon is None else tokens[:, -1:]
    weight = model.head.weight.reshape(-1, 3, 2, 2, D).permute(0, 4, 1, 2, 3)
    bias = model.head.bias.reshape(-1, 3, 2, 2)
    for step in range(y.size(1)):
        head, frame = (0, step) if horizon is None else (step, 0)
        field = fields[:, frame].transpose(1, 2).unflatten(-1, (2, 3))
        expected = nn.functional.conv_transpose2d(field, weight[head], stride=2)
        close(y[:, step], expected + bias[head].repeat(1, 2, 3), 1e-5)


def test_other_sizes_and_lengths_are_interpolated():
    model = build(3, num_classes=5, **VIDEO)
    fine = torch.randn(2, 7, 3, 8, 12)
    scores = model(fine)
    fitting = build(3, num_classes=5, patch_size=2, image_size=(8, 12), num_frames=7)
    state = model.state_dict()
    state["position.space.weight"] = model.position.space((4, 6))
    time = state["position.time.table.embedding.weight"]
    time = nn.functional.interpolate(time.t()[None], 7, mode="linear")[0].t()
    state["position.time.table.embedding.weight"] = time
    fitting.load_state_dict(state)
    close(fitting(fine), scores, 1e-6)
    assert model(torch.randn(2, 1, 3, 2, 2)).shape == (2, 5)


def test_nodes_of_a_fixed_graph():
    model = build(num_nodes=5, out_channels=1)
    x = torch.randn(5, 4, 2)
    order = torch.tensor([1, 0, 2, 3, 4])
    assert (model(x[order])[order] - model(x)).abs().max() > 1e-3
    both = Batch.from_data_list([Data(x=x), Data(x=-x)])
    close(model(both), torch.cat([model(x), model(-x)]), 1e-6)
    with pytest.raises(ValueError, match=r"each of 5 nodes, got 4.*cannot be interpolated"):
        model(x[:4])
    with pytest.raises(ValueError, match="each of 5 nodes, got 4"):
        model(Batch.from_data_list([Data(x=x), Data(x=x[:4])]))


@pytest.mark.parametrize("attention_type", ["divided", "space_only", "factorized_encoder"])
def test_neighbors_only(attention_type):
    model = build(attention_type=attention_type, neighbors_only=True)
    x = torch.randn(2, 4, 5, 2)
    adj = torch.zeros(5, 5)
    adj[EDGES[1], EDGES[0]] = 1.0
    close(model(x, adj), model(x, EDGES), 1e-6)
    assert not torch.allclose(model(x, EDGES.flip(0)), model(x, EDGES))
    with pytest.raises(ValueError, match="edge_index is None"):
        model(x)
    parts = graphs(5, 1, 4)
    alone = torch.cat([model(part) for part in parts])
    close(model(Batch.from_data_list(parts)), alone, 1e-6)


def test_patches_with_neighbors():
    model = build(3, neighbors_only=True, **VIDEO)
    video, chain = torch.randn(2, 3, 3, 4, 6), torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    assert model(video, chain).shape == (2, D)
    assert not torch.allclose(model(video, chain.flip(0)), model(video, chain))


@pytest.mark.parametrize("attention_type", ["divided", "joint", "space_only"])
def test_causal(attention_type):
    model = build(attention_type=attention_type, pool=None, out_channels=3, causal=True)
    assert model.causal

    def op(x, mask=None):
        return model(x, nodes_first=True)

    laws.the_future_moves_nothing(op, torch.randn(5, 2, 4, 2))
    assert build(attention_type=attention_type).causal == (attention_type == "space_only")


@pytest.mark.parametrize("attention_type", TYPES)
def test_masks(attention_type):
    """A missing value has no influence, that it is missing has; and nothing breaks without any."""
    model = build(attention_type=attention_type)
    x, mask = torch.randn(3, 4, 5, 2), torch.rand(3, 4, 5, 2) > 0.4
    mask[0] = False
    y = model(x, mask=mask)
    for junk in (1e4, float("nan"), float("inf")):
        same(model(x.masked_fill(~mask, junk), mask=mask), y)
    assert not torch.allclose(model(x.masked_fill(~mask, 0.0)), y)
    same(model(x, mask=torch.ones_like(mask)), model(x))
    every = mask[..., 0]
    close(model(x, mask=every), model(x, mask=every[..., None].expand_as(x)), 1e-6)
    nodes = [t.permute(2, 0, 1, 3) for t in (x, mask)]
    close(model(nodes[0], mask=nodes[1], nodes_first=True), y, 1e-6)
    close(model(Data(x=nodes[0][:, 1], x_mask=nodes[1][:, 1])), y[1:2], 1e-6)
    leaf = x.masked_fill(~mask, float("nan")).requires_grad_()
    model(leaf, mask=mask).square().sum().backward()
    assert (leaf.grad[~mask] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("steps", "grid"), [(2, (1, 3)), (4, (2, 2)), (3, (7, 10)), (8, (3, 3))])
def test_work_of_the_attention_maps(steps, grid):
    """The closed forms for two layers, a layer of each kind for the factorized encoder."""
    nodes = grid[0] * grid[1]
    expected = {
        "divided": 2 * 4 * D * steps * nodes * (steps + nodes),
        "joint": 2 * 4 * D * (steps * nodes) ** 2,
        "space_only": 2 * 4 * D * steps * nodes**2,
        "factorized_encoder": 2 * 4 * D * (steps * nodes**2 + steps**2),
    }
    video = torch.randn(1, steps, 1, *grid)
    for attention_type, work in expected.items():
        model = build(1, attention_type=attention_type, pool="mean", patch_size=1, image_size=grid)
        counter = FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):
            model(video)
        assert counter.get_flop_counts()["Global"][torch.ops.aten.bmm] == work


def test_parameters_are_the_parts_of_the_formula():
    model = SpaceTimeTransformer(3, D, HEADS, 1, num_classes=5, **VIDEO)
    block = 3 * 2 * D + 2 * 4 * (D * D + D) + (D * D + D) + 8 * D * D + 5 * D
    expected = (3 * 4 + 1) * D + D + (6 + 1 + 3) * D + block + 2 * D + (D + 1) * 5
    assert sum(p.numel() for p in model.parameters()) == expected


def test_initialization():
    model = SpaceTimeTransformer(3, 400, num_layers=1, patch_size=4, image_size=32)
    for parameter in (
        model.position.space.weight,
        model.position.cls,
        model.position.time.table.embedding.weight,
        model.embed.projection.weight,
    ):
        assert parameter.std().item() == pytest.approx(0.02, rel=0.1)
    before = nn.utils.parameters_to_vector(model.parameters())
    torch.manual_seed(0)
    model.reset_parameters()
    once = nn.utils.parameters_to_vector(model.parameters())
    torch.manual_seed(0)
    model.reset_parameters()
    same(nn.utils.parameters_to_vector(model.parameters()), once)
    assert not torch.equal(once, before)
    assert (model.encoder.layers[0].temporal_fc.weight == 0).all()


def test_every_argument_has_a_default():
    assert SpaceTimeTransformer()(torch.randn(2, 5, 3, 1)).shape == (2, 64)


def test_config():
    model = build(3, num_classes=5, drop_path=0.1, **VIDEO)
    again = SpaceTimeTransformer(**model.config())
    again.load_state_dict(model.state_dict(), strict=True)
    video = torch.randn(2, 3, 3, 4, 6)
    same(again.eval()(video), model(video))
    assert again.config() == model.config()


@pytest.mark.parametrize("attention_type", TYPES)
def test_copies_and_inputs(attention_type):
    model, video = build(3, attention_type=attention_type, **VIDEO), torch.randn(2, 3, 3, 4, 6)
    laws.copies_are_equal(model, lambda model: model(video))
    laws.inputs_stay_untouched(model, video)
    close(model(video.transpose(0, -1).contiguous().transpose(0, -1)), model(video), 1e-6)
    wide = video[:, :1].expand_as(video)
    close(model(wide), model(wide.contiguous()), 1e-6)
    model, x, mask = build(), torch.randn(2, 4, 5, 2), torch.rand(2, 4, 5) > 0.5
    laws.inputs_stay_untouched(model, x, mask=mask)


@pytest.mark.parametrize("attention_type", TYPES)
def test_gradients_in_double_precision(attention_type):
    model = SpaceTimeTransformer(1, 4, 2, 1, attention_type=attention_type, mlp_ratio=1).double()
    x = torch.randn(1, 2, 3, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, x)


@pytest.mark.parametrize("attention_type", TYPES)
def test_bfloat16_autocast_is_finite(attention_type):
    model, video = build(3, attention_type=attention_type, **VIDEO), torch.randn(2, 3, 3, 4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(video)
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert (y - model(video)).abs().max() < 0.1


def test_dropped_paths_and_dropout_in_training_only():
    for options in ({"dropout": 0.5}, {"drop_path": 0.5}):
        model, video = build(3, **VIDEO, **options).train(), torch.randn(8, 3, 3, 4, 6)
        assert not torch.equal(model(video), model(video))
        model.eval()
        same(model(video), model(video))


def test_options_that_do_not_go_together():
    factorized = {"attention_type": "factorized_encoder"}
    for options, message in (
        ({"attention_type": "axial"}, r"'axial'; choose one of \('divided', 'joint', 'space_only'"),
        ({"pool": "max"}, r"unknown pool 'max'; choose one of \('cls', 'mean', None\)"),
        ({"patch_size": 2}, "both patch_size and image_size.*patch_size=2 and image_size=None"),
        ({"image_size": 2}, "both patch_size and image_size.*patch_size=None and image_size=2"),
        ({"patch_size": 3, "image_size": 8}, "8 x 8 cannot be cut into patches of 3 x 3"),
        (VIDEO | {"num_nodes": 6}, "num_nodes=6 is for graphs, patch_size=2 for videos"),
        ({"num_classes": 2, "out_channels": 1}, "num_classes=2 reads .* out_channels=1"),
        ({"num_classes": 2, "pool": None}, "num_classes=2 needs pool='cls' or 'mean', got None"),
        ({"horizon": 2}, "horizon=2 needs out_channels, got None"),
        ({"causal": True}, "causal=True needs pool='mean' or None, got 'cls'"),
        ({"temporal_layers": 2}, "temporal_layers=2 needs attention_type='factorized_encoder'"),
        (factorized | {"drop_path": 0.1}, r"drop_path=0\.1 needs attention_type='divided'"),
        (factorized | {"out_channels": 1}, "gives one vector a video or graph"),
        (factorized | {"pool": None}, "gives one vector a video or graph.*pool=None"),
        (factorized | {"pool": "mean", "causal": True}, "one vector a video.*causal=True"),
        ({"attention_type": "joint", "neighbors_only": True}, "attention within an instant"),
        ({"num_heads": 5}, r"\(64\) must be divisible by heads \(5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            SpaceTimeTransformer(**options)


def test_inputs_that_do_not_fit():
    model = build(3, **VIDEO)
    with pytest.raises(
        ValueError, match=r"videos \[B, T, 3, H, W\], got x of shape \[2, 3, 6, 3\]"
    ):
        model(torch.randn(2, 3, 6, 3))
    with pytest.raises(ValueError, match="5 x 6 cannot be cut into patches of 2 x 2"):
        model(torch.randn(2, 3, 3, 5, 6))
    video = torch.randn(2, 3, 3, 4, 6)
    with pytest.raises(ValueError, match="videos take none"):
        model(video, mask=torch.ones_like(video, dtype=torch.bool))
    model, x = build(), torch.randn(2, 4, 5, 2)
    with pytest.raises(ValueError, match=r"C = 2 channels last, got .* \[2, 4, 5, 3\]"):
        model(torch.randn(2, 4, 5, 3))
    for mask in (torch.ones(2, 4, 5), torch.ones(4, 5).bool(), torch.ones(2, 4, 4).bool()):
        with pytest.raises(ValueError, match="the mask must be boolean with one entry"):
            model(x, mask=mask)


def test_repr():
    model = build(3, num_classes=5, **VIDEO)
    expected = "SpaceTimeTransformer(3, 12, num_layers=2, attention_type='divided', pool='cls')"
    assert repr(copy.deepcopy(model)) == expected
