import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark.memory import peak_memory
from pyg_stmamba.nn.transformer import TransformerEncoder
from tests.nn.transformer.conftest import HEADS, INNER, D, randomized, weights_of_torch

B, L = 4, 6
PADDING = torch.arange(L) >= torch.tensor([[6], [4], [5], [3]])


def encoder(**options):
    arguments = {"d_model": D, "nhead": HEADS, "num_layers": 2, "dim_feedforward": INNER}
    return TransformerEncoder(3, **{**arguments, **options})


@pytest.mark.parametrize("norm_strategy", ["pre_norm", "post_norm"])
@pytest.mark.parametrize("final", [False, True])
def test_is_the_encoder_of_torch(norm_strategy, final, causal):
    pre = norm_strategy == "pre_norm"
    layer = nn.TransformerEncoderLayer(
        D, HEADS, INNER, 0.0, "gelu", batch_first=True, norm_first=pre, dtype=torch.float64
    )
    norm = nn.LayerNorm(D, dtype=torch.float64) if final else None
    theirs = randomized(nn.TransformerEncoder(layer, 3, norm, enable_nested_tensor=False))
    ours = encoder(
        num_layers=3,
        dropout=0.0,
        norm_strategy=norm_strategy,
        use_swiglu=False,
        use_final_norm=final,
    ).double()
    for mine, other in zip(ours.layers, theirs.layers):
        mine.load_state_dict(weights_of_torch(other))
    if final:
        ours.final_norm.load_state_dict(norm.state_dict())
    x = torch.randn(B, L, 3, dtype=torch.float64)
    tokens = ours.pos_encoder(ours.input_projection(x))
    for mask, padding in ((None, None), (causal, None), (None, PADDING), (causal, PADDING)):
        expected = theirs(tokens, mask, padding)
        there = ~PADDING if padding is not None else torch.ones_like(PADDING)
        torch.testing.assert_close(
            ours(x, mask, padding)[there], expected[there], atol=1e-10, rtol=1e-9
        )


def test_parts_of_an_embedding():
    model = encoder(num_layers=1, pos_encoding_scale=0.5, num_time_features=2).eval()
    x, time = torch.randn(B, L, 3), torch.randn(B, L, 2)
    tokens = x @ model.input_projection.weight.T + time @ model.time_projection.weight.T
    tokens = tokens + 0.5 * model.pos_encoder.position(0, L, x)
    expected = model.final_norm(model.layers[0](tokens)[0])
    torch.testing.assert_close(model(x, time_features=time), expected)


def test_own_positions():
    class Nothing(nn.Module):
        def forward(self, x, offset=0):
            return x

    model = encoder(pos_encoder=Nothing()).eval()
    x, order = torch.randn(B, L, 3), torch.randperm(L)
    torch.testing.assert_close(model(x)[:, order], model(x[:, order]), atol=1e-5, rtol=1e-5)
    plain = encoder().eval()
    assert not torch.allclose(plain(x)[:, order], plain(x[:, order]), atol=1e-3)


def test_condition_reaches_all_layers_and_the_final_norm():
    model = randomized(encoder(use_adaptive_ln="adaptive", cond_dim=2)).eval()
    x, cond = torch.randn(B, L, 3), torch.randn(B, 2)
    h = model.pos_encoder(model.input_projection(x))
    for layer in model.layers:
        h, _ = layer(h, cond=cond)
    y = model(x, cond=cond)
    torch.testing.assert_close(y, model.final_norm(h, cond))
    assert not torch.allclose(model(x, cond=cond.roll(1, 0)), y)


def test_output_size():
    model = encoder(output_size=2).eval()
    assert model(torch.randn(B, L, 3)).shape == (B, L, 2)


@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash", "frequency"])
@pytest.mark.parametrize("norm", ["layer", "rms", "adaptive", "adaptive_layer", "adaptive_rms"])
@pytest.mark.parametrize("norm_strategy", ["pre_norm", "post_norm"])
def test_every_option_trains(att_type, norm, norm_strategy):
    model = encoder(att_type=att_type, use_adaptive_ln=norm, norm_strategy=norm_strategy)
    x = torch.randn(B, L, 3)
    kept = x.clone()
    y = model(x)
    assert y.shape == (B, L, D)
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any() or "in_proj_bias" in name, name
    assert torch.equal(x, kept)
    assert model.get_aux_loss() == 0


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_auxiliary_loss_is_the_sum_over_depths(shared, checkpointing):
    model = encoder(
        use_moe=True,
        num_experts=4,
        num_layers=3,
        share_layers=shared,
        use_gradient_checkpointing=checkpointing,
        dropout=0.0,
    )
    x = torch.randn(B, L, 3)
    model(x, src_key_padding_mask=PADDING)
    h, expected = model.pos_encoder(model.input_projection(x)), 0.0
    for depth in range(3):
        h, aux_loss = model.layers[0 if shared else depth](h, None, PADDING)
        expected = expected + aux_loss
    assert expected > 0
    torch.testing.assert_close(model.get_aux_loss(), expected, atol=1e-6, rtol=1e-5)
    model.get_aux_loss().backward()
    for layer in model.layers:
        routers = [p for name, p in layer.named_parameters() if "router" in name]
        assert routers
        assert all((router.grad != 0).any() for router in routers)
    model(torch.randn(B, L, 3))
    assert not torch.equal(model.get_aux_loss(), expected)
    model.eval()
    model(x)
    assert model.get_aux_loss() == 0


@pytest.mark.parametrize("use_moe", [False, True])
def test_checkpointing_changes_nothing(use_moe):
    plain = encoder(dropout=0.3, num_layers=3, use_moe=use_moe, num_experts=4)
    saving = encoder(
        dropout=0.3, num_layers=3, use_moe=use_moe, num_experts=4, use_gradient_checkpointing=True
    )
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(B, L, 3)
    results = []
    for model in (plain, saving):
        torch.manual_seed(3)
        y = model(x, src_key_padding_mask=PADDING)
        (y.square().sum() + model.get_aux_loss()).backward()
        results.append((y, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)


def test_checkpointing_saves_memory():
    """At least four times less for each layer more, at no more than the cost of a second forward
    pass."""
    memory, flops = {}, {}
    x = torch.randn(8, 64, 3)
    for checkpointing in (False, True):
        for num_layers in (2, 8):
            model = TransformerEncoder(
                3, 64, 4, num_layers, 256, use_gradient_checkpointing=checkpointing
            )
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)

            def step(model=model):
                model(x).sum().backward()

            memory[checkpointing, num_layers] = peak_memory(step, torch.device("cpu"))
            with FlopCounterMode(display=False) as counter:
                step()
            flops[checkpointing, num_layers] = counter.get_total_flops()
    plain = memory[False, 8] - memory[False, 2]
    saving = memory[True, 8] - memory[True, 2]
    assert plain > 4 * saving
    assert flops[True, 8] <= 1.4 * flops[False, 8]


@pytest.mark.parametrize("num_layers", [2, 8])
def test_shared_layers_are_one(num_layers):
    shared = encoder(share_layers=True, num_layers=num_layers, dropout=0.0)
    one = encoder(num_layers=1)
    assert sum(p.numel() for p in shared.parameters()) == sum(p.numel() for p in one.parameters())
    tied = encoder(num_layers=num_layers, dropout=0.0)
    tied.load_state_dict(
        {
            name.replace("layers.0.", f"layers.{depth}."): value
            for depth in range(num_layers)
            for name, value in shared.state_dict().items()
        }
    )
    x = torch.randn(B, L, 3)
    shared(x).square().sum().backward()
    tied(x).square().sum().backward()
    assert torch.equal(shared(x), tied(x))
    for name, parameter in shared.layers[0].named_parameters():
        grads = sum(layer.get_parameter(name).grad for layer in tied.layers)
        torch.testing.assert_close(parameter.grad, grads, atol=1e-4, rtol=1e-4)


def test_initialization():
    """The moments of each kind of parameter, outputs of phases scaled by the number of phases."""
    torch.manual_seed(0)
    num_layers, width, inner = 4, 128, 300
    model = TransformerEncoder(
        100, width, 4, num_layers, inner, use_moe=False, use_adaptive_ln="layer"
    )
    hidden = 8 * math.ceil(2 / 3 * inner / 8)
    depth = 1 / math.sqrt(2 * num_layers)

    def xavier(fan_in, fan_out):
        return math.sqrt(2 / (fan_in + fan_out))

    expected = {
        "input_projection.weight": xavier(100, width),
        "layers.1.self_attn.in_proj_weight": xavier(width, width),
        "layers.1.self_attn.out_proj.weight": xavier(width, width) * depth,
        "layers.1.feed_forward.linear2.weight": xavier(hidden, width) * depth,
    }
    for name, std in expected.items():
        assert abs(float(model.get_parameter(name).detach().std()) / std - 1) < 0.05, name
    gated = model.get_parameter("layers.1.feed_forward.linear1.weight")
    for part in gated.chunk(2):
        assert abs(float(part.detach().std()) / xavier(width, hidden) - 1) < 0.05
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif ".norm." in name or name.startswith("final_norm"):
            assert (parameter == 1).all(), name


def test_initialization_of_experts_and_conditions():
    model = TransformerEncoder(
        3, 64, 4, 3, 96, use_moe=True, num_experts=64, use_adaptive_ln="adaptive", cond_dim=5
    )
    names = dict(model.named_parameters())
    routers = [p for name, p in names.items() if "router" in name]
    assert len(routers) == 3
    for router in routers:
        assert abs(float(router.detach().std()) / 0.02 - 1) < 0.05
    hidden = 8 * math.ceil(2 / 3 * 96 / 8)
    for layer in model.layers:
        experts = layer.feed_forward.experts
        std = math.sqrt(2 / (64 + hidden))
        assert abs(float(experts.gate_up_proj.detach().std()) / std - 1) < 0.05
        assert abs(float(experts.down_proj.detach().std()) * math.sqrt(2 * 3) / std - 1) < 0.05
    for name, parameter in names.items():
        if ".norm." in name:
            assert (parameter == 0).all(), name
    x, cond = torch.randn(2, 4, 3), torch.randn(2, 5)
    model.eval()
    torch.testing.assert_close(model(x, cond=cond), model(x, cond=0 * cond))


def test_initialization_follows_the_seed():
    def weights(seed):
        torch.manual_seed(seed)
        return encoder(use_moe=True, num_experts=4, att_type="frequency").state_dict()

    torch.testing.assert_close(weights(5), weights(5), atol=0, rtol=0)
    torch.manual_seed(5)
    model = encoder(use_moe=True, num_experts=4, att_type="frequency")
    torch.manual_seed(5)
    model.reset_parameters()
    first = model.layers[0].self_attn.state_dict()
    torch.manual_seed(5)
    model.reset_parameters()
    again = model.layers[0].self_attn.state_dict()
    torch.testing.assert_close(first, again, atol=0, rtol=0)


def gradient_spread(norm_strategy, scaled):
    """How much larger gradients are in one of 24 layers than in another, at the start."""
    torch.manual_seed(0)
    model = TransformerEncoder(
        3, 32, 4, 24, 128, dropout=0.0, norm_strategy=norm_strategy, use_swiglu=False
    )
    if not scaled:
        with torch.no_grad():
            for layer in model.layers:
                layer.self_attn.out_proj.weight.mul_(math.sqrt(48))
                layer.feed_forward.linear2.weight.mul_(math.sqrt(48))
    y = model(torch.randn(8, 16, 3))
    (y * torch.randn_like(y)).sum().backward()
    norms = [
        torch.stack([parameter.grad.norm() for parameter in layer.parameters()]).norm()
        for layer in model.layers
    ]
    return float(max(norms) / min(norms))


def test_gradients_of_pre_and_post_norm():
    """Alike in all layers with pre_norm, not with post_norm, as in section 4 of the paper on layer
    normalization in the transformer; smaller outputs of phases mend the latter."""
    assert gradient_spread("pre_norm", scaled=False) <= 3 < gradient_spread("post_norm", False)
    assert gradient_spread("pre_norm", scaled=True) <= 3
    assert gradient_spread("post_norm", scaled=True) <= 3


def test_dropout_in_training_only():
    model, x = encoder(dropout=0.3), torch.randn(B, L, 3)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_padding_has_no_influence():
    model = encoder(use_moe=True, num_experts=4).eval()
    x = torch.randn(B, L, 3)
    other = x.masked_fill(PADDING.unsqueeze(-1), 100.0)
    y, z = (model(v, src_key_padding_mask=PADDING)[~PADDING] for v in (x, other))
    assert torch.equal(y, z)


def test_copies():
    model = encoder(use_moe=True, num_experts=4, use_adaptive_ln="adaptive_rms", cond_dim=2)
    x, cond = torch.randn(B, L, 3), torch.randn(B, 2)
    model(x, cond=cond)
    model.eval()
    y = model(x, cond=cond)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x, cond=cond), y)
    fresh = encoder(use_moe=True, num_experts=4, use_adaptive_ln="adaptive_rms", cond_dim=2).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x, cond=cond), y)


@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash", "frequency"])
def test_gradcheck(att_type):
    model = encoder(att_type=att_type, dropout=0.0, num_layers=1).double()
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))


@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash"])
def test_compiled_equals_eager(att_type):
    torch.compiler.reset()
    model, x = encoder(att_type=att_type, num_layers=1).eval(), torch.randn(B, L, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash", "frequency"])
def test_half_precision_is_finite(att_type):
    model = encoder(att_type=att_type, use_moe=True, num_experts=4)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(10 * torch.randn(B, L, 3), src_key_padding_mask=PADDING)
        loss = y.float().square().mean() + model.get_aux_loss()
    loss.backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"att_type": "prob_sparse"}, "prob_sparse"),
        ({"use_adaptive_ln": "batch"}, "batch"),
        ({"norm_strategy": "sandwich"}, "'sandwich'; choose"),
        ({"activation": "tanh", "use_swiglu": False}, "tanh"),
        ({"nhead": 5}, "5"),
        ({"cond_dim": 4}, "cond_dim=4 needs a norm that takes a condition"),
        ({"use_moe": True, "top_k": 9}, "9"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_wrong_inputs():
    model = encoder(max_seq_len=8)
    with pytest.raises(ValueError, match=r"expects \[B, L, 3\] .* got a tensor of shape \[4, 3\]"):
        model(torch.randn(4, 3))
    with pytest.raises(ValueError, match="reaches 9 tokens, but max_len=8"):
        model(torch.randn(2, 9, 3))
    with pytest.raises(ValueError, match="num_time_features=0; build TransformerEncoder"):
        model(torch.randn(2, 5, 3), time_features=torch.randn(2, 5, 1))
    timed = encoder(num_time_features=2)
    with pytest.raises(ValueError, match=r"time_features must be \[2, 5, 2\], got None"):
        timed(torch.randn(2, 5, 3))
