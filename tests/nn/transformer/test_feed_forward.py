import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_stmamba.benchmark import peak_memory
from pyg_stmamba.nn.transformer.feed_forward import FeedForwardBlock
from pyg_stmamba.nn.transformer.mixture_of_experts import MixtureOfExperts
from tests import laws
from tests.laws import close, same

B, L, D, FF = 2, 9, 16, 36  # gated: 24 within


def block(**options) -> FeedForwardBlock:
    op = FeedForwardBlock(D, FF, **{"dropout": 0.0, **options})
    for name, parameter in op.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return op


def gradients(op, run, x):
    y = run(x)
    weight = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    return y, torch.autograd.grad((y * weight).sum(), [x, *op.parameters()])


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_against_llama(bias):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    op = block(bias=bias)
    other = LlamaMLP(
        LlamaConfig(hidden_size=D, intermediate_size=24, num_attention_heads=1, mlp_bias=bias)
    )
    names = ["weight", "bias"] if bias else ["weight"]
    state = {}
    for name in names:
        packed = getattr(op.linear1, name)
        state[f"gate_proj.{name}"], state[f"up_proj.{name}"] = packed.detach().split(24)
        state[f"down_proj.{name}"] = getattr(op.linear2, name).detach()
    other.load_state_dict(state)
    x = 20 * torch.randn(B, L, D)  # nothing is clamped
    x = x.requires_grad_()
    y, grads = gradients(op, lambda x: op(x)[0], x)
    expected, right = gradients(other, other, x)
    scale = expected.detach().abs().max()
    close(y / scale, expected / scale, 1e-6)
    ours = dict(zip(["x", *(n for n, _ in op.named_parameters())], grads))
    theirs = dict(zip(["x", *(n for n, _ in other.named_parameters())], right))
    for name in names:
        theirs[f"linear1.{name}"] = torch.cat(
            [theirs.pop(f"gate_proj.{name}"), theirs.pop(f"up_proj.{name}")]
        )
        theirs[f"linear2.{name}"] = theirs.pop(f"down_proj.{name}")
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        scale = gradient.abs().max()
        close(ours[name] / scale, gradient / scale, 1e-6)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("gelu", F.gelu), ("relu", F.relu), ("swish", F.silu), ("silu", F.silu)],
)
def test_plain_against_torch(activation, function):
    op = block(use_swiglu=False, activation=activation)
    if activation in ("gelu", "relu"):
        layer = nn.TransformerEncoderLayer(D, 2, FF, 0.0, activation, batch_first=True)
        layer.linear1, layer.linear2 = op.linear1, op.linear2
        expected = layer._ff_block
    else:

        def expected(x):
            return op.linear2(function(op.linear1(x)))

    x = torch.randn(B, L, D)
    close(op(x)[0], expected(x), 1e-6)


@pytest.mark.parametrize("dim_feedforward", [2048, 1000, 512])
def test_gated_and_plain_have_equally_many_parameters(dim_feedforward):
    def count(**options):
        with torch.device("meta"):
            op = FeedForwardBlock(256, dim_feedforward, **options)
        return sum(p.numel() for p in op.parameters())

    assert count() == pytest.approx(count(use_swiglu=False), rel=0.01)
    hidden = 8 * math.ceil(dim_feedforward * 2 / 3 / 8)
    assert FeedForwardBlock(1, dim_feedforward).linear2.in_features == hidden


def test_there_is_no_loss_without_experts():
    y, aux = block()(torch.randn(B, L, D))
    assert y.shape == (B, L, D)
    assert aux.shape == ()
    assert aux.item() == 0.0


@pytest.mark.parametrize("use_swiglu", [True, False])
@pytest.mark.parametrize("use_moe", [True, False])
@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_chunks_change_nothing(use_swiglu, use_moe, size):
    options = {"use_swiglu": use_swiglu, "use_moe": use_moe, "num_experts": 4}
    whole, chunked = block(**options), block(**options, ff_chunk_size=size)
    chunked.load_state_dict(whole.state_dict())
    x = torch.randn(B, L, D, requires_grad=True)
    (y, grads), (expected, right) = (
        gradients(op, lambda x, op=op: sum(op(x)), x) for op in (chunked, whole)
    )
    close(y, expected, 1e-6)
    for a, b in zip(grads, right):
        close(a, b, 1e-5)
    with torch.no_grad():
        close(sum(chunked(x)), expected, 1e-6)


@pytest.mark.parametrize("use_swiglu", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_four_chunks_need_little_memory(use_swiglu, train):
    whole = FeedForwardBlock(64, 256, use_swiglu=use_swiglu)
    chunked = FeedForwardBlock(64, 256, use_swiglu=use_swiglu, ff_chunk_size=256)
    x = torch.randn(1, 1024, 64)

    def run(op):
        with torch.set_grad_enabled(train):
            y, _ = op(x)
            if train:
                y.sum().backward()

    assert peak_memory(lambda: run(chunked), x.device) <= 0.6 * peak_memory(
        lambda: run(whole), x.device
    )


def test_dropout_within():
    """Within, 1 becomes 0 or 2."""
    op = FeedForwardBlock(1, 1, 0.5, "relu", use_swiglu=False)
    for parameter, value in zip(op.parameters(), (0.0, 1.0, 1.0, 1.0)):
        nn.init.constant_(parameter, value)
    x = torch.randn(B, 100, 1)
    assert set(op(x)[0].unique().tolist()) == {1.0, 3.0}
    close(op.eval()(x)[0], torch.full((B, 100, 1), 2.0), 1e-6)


def test_options_reach_the_experts():
    op = FeedForwardBlock(
        D,
        FF,
        dropout=0.3,
        activation="swish",
        use_swiglu=False,
        ff_chunk_size=5,
        use_moe=True,
        num_experts=5,
        top_k=3,
        moe_capacity_factor=1.5,
        moe_aux_weight=0.5,
        moe_z_weight=0.25,
    ).experts
    assert isinstance(op, MixtureOfExperts)
    assert isinstance(op.activation, nn.SiLU)
    assert op.up_proj.shape == (5, FF, D)
    assert op.up_bias.shape == (5, FF)
    assert op.down_bias.shape == (5, D)
    assert (op.dropout.p, op.top_k, op.capacity_factor) == (0.3, 3, 1.5)
    assert (op.aux_weight, op.z_weight, op.chunk_size) == (0.5, 0.25, 5)
    gated = FeedForwardBlock(D, FF, bias=False, use_moe=True).experts
    assert gated.gate_up_proj.shape == (8, 48, D)
    assert gated.down_bias is None


@pytest.mark.parametrize("use_swiglu", [True, False])
def test_one_expert_is_the_dense_network(use_swiglu):
    dense = block(use_swiglu=use_swiglu)
    op = block(use_swiglu=use_swiglu, use_moe=True, num_experts=1, top_k=1)
    inner = "gate_up" if use_swiglu else "up"
    state = {
        f"experts.{inner}_proj": dense.linear1.weight.unsqueeze(0),
        f"experts.{inner}_bias": dense.linear1.bias.unsqueeze(0),
        "experts.down_proj": dense.linear2.weight.unsqueeze(0),
        "experts.down_bias": dense.linear2.bias.unsqueeze(0),
    }
    op.load_state_dict({"experts.router.weight": op.experts.router.weight, **state})
    x = torch.randn(B, L, D)
    close(op(x)[0], dense(x)[0], 1e-6)


def test_padding_reaches_the_experts():
    op, x = block(use_moe=True), torch.randn(B, L, D)
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[1, 4:] = True
    y, aux = op(x, padding)
    expected, right = op.experts(x, padding)
    same(y, expected)
    same(aux, right)
    assert (y[padding] == 0).all()
    same(block()(x, padding)[0].isfinite(), torch.ones(B, L, D, dtype=torch.bool))


@pytest.mark.parametrize("use_swiglu", [True, False])
def test_gradcheck(use_swiglu):
    op = FeedForwardBlock(3, 6, 0.0, use_swiglu=use_swiglu, ff_chunk_size=2).double()
    x = torch.randn(1, 3, 3, dtype=torch.double, requires_grad=True)
    names, weights = zip(*op.named_parameters())

    def run(x, *weights):
        return torch.func.functional_call(op, dict(zip(names, weights)), (x,))[0]

    assert torch.autograd.gradcheck(run, (x, *weights))


class Output(nn.Module):
    def __init__(self, op: FeedForwardBlock) -> None:
        super().__init__()
        self.op = op

    def forward(self, x):
        return self.op(x)[0]


@pytest.mark.parametrize("options", [{}, {"use_swiglu": False}, {"use_moe": True}])
def test_module_laws(options):
    op, x = Output(block(**options)), torch.randn(B, L, D)
    laws.copies_are_equal(op.requires_grad_(False), lambda op: op(x))
    laws.inputs_stay_untouched(op.requires_grad_(True), x.requires_grad_())
    laws.layout_does_not_matter(op, x.detach())
    before = op(x)
    op.op.reset_parameters()
    assert not torch.equal(op(x), before)


def test_initialization():
    """Both halves of the packed matrix start as if each stood alone."""
    op = FeedForwardBlock(256, 384)
    assert op.linear1.weight.std().item() == pytest.approx((2 / (256 + 256)) ** 0.5, rel=0.02)
    assert op.linear2.weight.std().item() == pytest.approx((2 / (256 + 256)) ** 0.5, rel=0.02)
    assert (op.linear1.bias == 0).all()
    assert (op.linear2.bias == 0).all()


@pytest.mark.parametrize("use_moe", [True, False])
def test_bad_options(use_moe):
    with pytest.raises(ValueError, match=r"'tanh'.*\['gelu', 'relu', 'silu', 'swish'\]"):
        FeedForwardBlock(D, activation="tanh", use_moe=use_moe)
    with pytest.raises(ValueError, match="ff_chunk_size=0 must be at least 1, or None"):
        FeedForwardBlock(D, ff_chunk_size=0, use_moe=use_moe)
    with pytest.raises(ValueError, match="dim_feedforward=0 must be at least 1"):
        FeedForwardBlock(D, 0, use_moe=use_moe)
    with pytest.warns(UserWarning, match="'relu' has no effect with use_swiglu=True"):
        op = FeedForwardBlock(D, activation="relu", use_moe=use_moe)
    with pytest.raises(ValueError, match=r"\[B, L, 16\], got a tensor of shape \[2, 16\]"):
        op(torch.randn(2, D))
