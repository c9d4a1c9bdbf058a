import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.nn.blocks.space_time_stack import ATTENTION_TYPES, SpaceTimeStack
from tests import laws
from tests.laws import close, same
from tests.nn.encoder_layer_oracle import randomized, torch_layer

D, HEADS = 12, 3
EDGES = torch.tensor([[0, 1, 1, 0, 2, 3], [1, 1, 0, 2, 3, 2]])  # 0 -> 2 has no way back


def stack(attention_type, num_layers=2, **options) -> SpaceTimeStack:
    return randomized(SpaceTimeStack(attention_type, D, HEADS, num_layers, **options)).eval()


@pytest.mark.parametrize("with_cls", [False, True])
def test_space_only_is_a_vision_transformer_on_each_frame(with_cls):
    op = stack("space_only")
    x, cls = torch.randn(5, 2, 4, D), torch.randn(1, 2, 1, D)  # N B T D
    y, token = op(x, cls if with_cls else None)
    tokens = []
    for t in range(4):
        rows = x[:, :, t]
        if with_cls:
            rows = torch.cat([cls[:, :, 0], rows])
        rows = rows.transpose(0, 1)
        for layer in op.layers.layers:
            rows = torch_layer(layer, HEADS, norm_first=True)(rows)
        tokens.append(rows[:, :1])
        close(y[:, :, t], rows[:, int(with_cls) :].transpose(0, 1), 1e-5)
    if with_cls:
        close(token[0], torch.stack(tokens).mean(0), 1e-5)
    else:
        assert token is None


@pytest.mark.parametrize("with_cls", [False, True])
def test_joint_is_a_transformer_over_all_tokens(with_cls):
    op = stack("joint")
    x, cls = torch.randn(5, 2, 4, D), torch.randn(1, 2, 1, D)
    y, token = op(x, cls if with_cls else None)
    rows = x.permute(1, 2, 0, 3).flatten(1, 2)
    if with_cls:
        rows = torch.cat([cls[0], rows], 1)
    for layer in op.layers.layers:
        rows = torch_layer(layer, HEADS, norm_first=True)(rows)
    close(y, rows[:, int(with_cls) :].unflatten(1, (4, 5)).permute(2, 0, 1, 3), 1e-5)
    if with_cls:
        close(token[0], rows[:, :1], 1e-5)
    else:
        assert token is None


def test_divided_goes_through_its_blocks():
    op = stack("divided", drop_path=0.3, num_layers=3)
    assert [block.drop_path.p for block in op.layers] == pytest.approx([0, 0.15, 0.3])
    x, cls = torch.randn(5, 2, 4, D), torch.randn(1, 2, 1, D)
    y, token = op(x, cls)
    for block in op.layers:
        x, cls = block(x, cls=cls, nodes_first=True)
    same(y, x)
    same(token, cls)


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize("with_cls", [False, True])
def test_graphs_do_not_mix(attention_type, with_cls):
    op, sizes = stack(attention_type), torch.tensor([3, 1, 4])
    x, batch = torch.randn(8, 4, D), torch.arange(3).repeat_interleave(sizes)
    cls = torch.randn(3, 1, D) if with_cls else None
    y, token = op(x, cls, None, batch)
    for graph, nodes in enumerate(x.split(sizes.tolist())):
        alone, own = op(nodes, cls[graph : graph + 1] if with_cls else None)
        close(y[batch == graph], alone, 1e-6)
        if with_cls:
            close(token[graph : graph + 1], own, 1e-6)


@pytest.mark.parametrize("attention_type", ["divided", "space_only"])
@pytest.mark.parametrize("with_cls", [False, True])
def test_neighbors_only(attention_type, with_cls):
    op = stack(attention_type, neighbors_only=True)
    x, cls = torch.randn(5, 4, D), torch.randn(1, 1, D) if with_cls else None
    y, _ = op(x, cls, EDGES)
    assert not torch.equal(op(x, cls, EDGES.flip(0))[0], y)
    if not with_cls:
        laws.only_near_nodes_matter(lambda x, edges, attr: op(x, None, edges)[0], x, EDGES, hops=2)
    with pytest.raises(ValueError, match="attention within an instant"):
        stack("joint", neighbors_only=True)


@pytest.mark.parametrize("attention_type", ["divided", "joint"])
def test_causal(attention_type):
    op = stack(attention_type, causal=True)
    laws.the_future_moves_nothing(lambda x, mask: op(x)[0], torch.randn(5, 2, 4, D))
    with pytest.raises(ValueError, match="take no class token"):
        op(torch.randn(5, 2, 4, D), torch.randn(1, 2, 1, D))


@pytest.mark.parametrize(("steps", "nodes"), [(2, 3), (4, 4), (3, 70), (20, 3), (16, 9)])
def test_work_of_the_attention_maps(steps, nodes):
    """As often as the closed forms of the paper say, for a layer."""
    expected = {
        "joint": 4 * D * (steps * nodes) ** 2,
        "divided": 4 * D * steps * nodes * (steps + nodes),
        "space_only": 4 * D * steps * nodes**2,
    }
    x = torch.randn(nodes, 1, steps, D)
    for attention_type, work in expected.items():
        counter, op = FlopCounterMode(display=False), stack(attention_type, 1)
        with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            op(x)
        assert counter.get_flop_counts()["Global"][torch.ops.aten.bmm] == work


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
def test_copies_and_inputs(attention_type):
    op, x, cls = stack(attention_type), torch.randn(5, 2, 4, D), torch.randn(1, 2, 1, D)
    laws.copies_are_equal(op, lambda op: op(x, cls)[0])
    kept = x.clone(), cls.clone()
    op(x, cls)[1].sum().backward()
    same(x, kept[0])
    same(cls, kept[1])
    before = nn.utils.parameters_to_vector(op.parameters())
    op.reset_parameters()
    assert not torch.equal(nn.utils.parameters_to_vector(op.parameters()), before)


def test_bad_options():
    with pytest.raises(ValueError, match=r"'axial'; choose one of \('divided', 'joint', 'space_o"):
        stack("axial")
    with pytest.raises(ValueError, match=r"drop_path=0\.1 needs attention_type='divided'"):
        stack("joint", drop_path=0.1)


def test_repr():
    assert str(stack("joint")).startswith("SpaceTimeStack(\n  attention_type='joint'")
