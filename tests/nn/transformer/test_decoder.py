import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.nn.transformer import TransformerDecoder, TransformerEncoder
from tests.nn.transformer.conftest import HEADS, INNER, D, randomized, weights_of_torch

B, L, S = 3, 7, 5
MEMORY_PADDING = torch.arange(S) >= torch.tensor([[2], [5], [4]])
GRID = [
    {
        "norm_strategy": norm_strategy,
        "use_adaptive_ln": norm,
        "att_type": att_type,
        "share_layers": shared,
        "use_moe": moe,
    }
    for norm_strategy, norm, att_type, shared, moe in itertools.product(
        ("pre_norm", "post_norm"),
        ("layer", "rms", "adaptive"),
        ("standard", "xformer", "flash"),
        (False, True),
        (False, True),
    )
]


def decoder(**options):
    arguments = {"d_model": D, "nhead": HEADS, "num_layers": 3, "dim_feedforward": INNER}
    return TransformerDecoder(4, 2, **{**arguments, "num_experts": 4, **options})


def stepwise(model, x, memory, sizes=None, **options):
    state, parts = {}, []
    for part in x.split(sizes or [1] * x.size(1), 1):
        y, returned = model.forward_one_step(part, memory, state, **options)
        assert returned is state  # filled in place
        parts.append(y)
    return torch.cat(parts, 1), state


@pytest.mark.parametrize("norm_strategy", ["pre_norm", "post_norm"])
def test_is_the_decoder_of_torch(norm_strategy, causal):
    layer = nn.TransformerDecoderLayer(
        D,
        HEADS,
        INNER,
        0.0,
        "relu",
        batch_first=True,
        norm_first=norm_strategy == "pre_norm",
        dtype=torch.float64,
    )
    theirs = randomized(nn.TransformerDecoder(layer, 3, nn.LayerNorm(D, dtype=torch.float64)))
    ours = decoder(
        dropout=0.0, activation="relu", norm_strategy=norm_strategy, use_swiglu=False
    ).double()
    for mine, other in zip(ours.layers, theirs.layers):
        mine.load_state_dict(weights_of_torch(other))
    ours.final_norm.load_state_dict(theirs.norm.state_dict())
    x = torch.randn(B, 6, 4, dtype=torch.float64)
    memory = torch.randn(B, S, D, dtype=torch.float64)
    tokens = ours.pos_encoder(ours.input_projection(x))
    expected = theirs(tokens, memory, causal, memory_key_padding_mask=MEMORY_PADDING)
    y = ours(x, memory, memory_key_padding_mask=MEMORY_PADDING)
    torch.testing.assert_close(y, ours.output_projection(expected), atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("options", GRID, ids=lambda o: "-".join(map(str, o.values())))
def test_steps_equal_the_whole(options):
    """In float64 nearly to the digit, in float32 to 1e-5; the memory is padded."""
    model = decoder(**options).eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        model = model.to(dtype)
        given = (x.to(dtype), memory.to(dtype))
        with torch.no_grad():
            whole = model(*given, memory_key_padding_mask=MEMORY_PADDING)
            steps, _ = stepwise(model, *given, memory_key_padding_mask=MEMORY_PADDING)
            chunks, _ = stepwise(model, *given, [4, 1, 2], memory_key_padding_mask=MEMORY_PADDING)
        torch.testing.assert_close(steps, whole, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(chunks, whole, atol=tolerance, rtol=tolerance)


def test_steps_with_time_features_and_condition():
    model = decoder(num_time_features=2, use_adaptive_ln="adaptive_rms", cond_dim=3).eval()
    randomized(model)
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    time, cond = torch.randn(B, L, 2), torch.randn(B, 3)
    whole = model(x, memory, time_features=time, cond=cond)
    state, parts = {}, []
    for t in range(L):
        y, state = model.forward_one_step(
            x[:, t : t + 1], memory, state, time_features=time[:, t : t + 1], cond=cond
        )
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_steps_have_the_gradients_of_the_whole():
    model = decoder(dropout=0.0, use_moe=True).double()
    x = torch.randn(B, L, 4, dtype=torch.float64)
    memory = torch.randn(B, S, D, dtype=torch.float64)
    results = []
    for way in (model, lambda *given: stepwise(model, *given)[0]):
        leaves = [x.clone().requires_grad_(), memory.clone().requires_grad_()]
        model.zero_grad()
        way(*leaves).square().sum().backward()
        results.append([leaf.grad for leaf in [*leaves, *model.parameters()]])
    torch.testing.assert_close(*results, atol=1e-9, rtol=1e-9)


def test_forward_returns_a_state_on_request():
    model = decoder().eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    whole = model(x, memory)
    first, state = model(x[:, :4], memory, return_incremental_state=True)
    rest = model(x[:, 4:], memory, incremental_state=state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=1e-5)
    one, fresh = model.forward_one_step(x[:, :1], memory)
    torch.testing.assert_close(one, whole[:, :1], atol=1e-5, rtol=1e-5)
    assert len(fresh["layers"]) == 3


@pytest.mark.parametrize("shared", [False, True])
def test_state_has_an_entry_for_each_depth(shared):
    model = decoder(share_layers=shared).eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    state = {}
    pointers = None
    for t in range(1, 4):
        model.forward_one_step(x[:, t : t + 1], memory, state)
        assert len(state["layers"]) == 3
        for layer in state["layers"]:
            assert set(layer) == {"self_attn", "cross_attn"}
            for name in ("key", "value"):
                assert layer["self_attn"][name].shape == (B, t, D)
                assert layer["cross_attn"][name].shape == (B, S, D)
        kept = [layer["cross_attn"] for layer in state["layers"]]
        now = [part[name].data_ptr() for part in kept for name in ("key", "value")]
        assert pointers in (None, now)  # computed once
        pointers = now
    keys = [layer["self_attn"]["key"] for layer in state["layers"]]
    assert not torch.allclose(keys[0], keys[1])


def test_memory_is_looked_at_once():
    model = decoder().eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    expected, _ = stepwise(model, x, memory)
    state = {}
    first, _ = model.forward_one_step(x[:, :1], memory, state)
    rest = [
        model.forward_one_step(x[:, t : t + 1], memory + float("nan"), state)[0]
        for t in range(1, L)
    ]
    assert torch.equal(torch.cat([first, *rest], 1), expected)


def test_cost_of_a_step():
    """A step costs what the one before it did, and the products with one more key and value."""
    batch, width, num_layers = 2, 16, 4
    model = TransformerDecoder(
        4, 2, d_model=width, nhead=2, num_layers=num_layers, dim_feedforward=24
    ).eval()
    memory, state, flops = torch.randn(batch, S, width), {}, []
    for _ in range(12):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.forward_one_step(torch.randn(batch, 1, 4), memory, state)
        flops.append(counter.get_total_flops())
    growth = {after - before for before, after in itertools.pairwise(flops[1:])}
    assert growth == {num_layers * batch * 4 * width}
    # The first step also computes keys and values of the memory.
    first = flops[0] + num_layers * batch * 4 * width - flops[1]
    assert first == num_layers * 2 * (2 * batch * S * width * width)


@pytest.mark.parametrize("use_moe", [False, True])
def test_the_future_moves_nothing(use_moe):
    model = decoder(use_moe=use_moe).eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    y = model(x, memory)
    for t in range(1, L):
        future = torch.cat([x[:, :t], 100 * torch.randn(B, L - t, 4)], 1)
        moved = model(future, memory)[:, :t] - y[:, :t]
        # An expert that serves more or fewer tokens at once rounds differently.
        assert moved.abs().max() <= (1e-5 if use_moe else 0.0)
    leaf = x.clone().requires_grad_()
    model(leaf, memory)[:, :4].square().sum().backward()
    assert (leaf.grad[:, 4:] == 0).all()


@pytest.mark.parametrize("att_type", ["standard", "xformer", "flash", "frequency"])
def test_informer_like_sees_all(att_type):
    model = decoder(att_type=att_type, informer_like=True).eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    leaf = x.clone().requires_grad_()
    model(leaf, memory)[:, :1].square().sum().backward()
    assert (leaf.grad != 0).any(-1).all()
    for call in (
        lambda: model.forward_one_step(x[:, :1], memory),
        lambda: model(x, memory, return_incremental_state=True),
    ):
        with pytest.raises(ValueError, match="informer_like=True: all tokens see each other"):
            call()


def test_frequency_is_not_causal():
    with pytest.raises(ValueError, match="att_type='frequency' in a causal decoder"):
        decoder(att_type="frequency")


@pytest.mark.parametrize("use_moe", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_checkpointing_changes_nothing(use_moe, shared):
    """The layers of the published code could not be trained with it at all."""
    plain = decoder(dropout=0.3, use_moe=use_moe, share_layers=shared)
    saving = decoder(
        dropout=0.3, use_moe=use_moe, share_layers=shared, use_gradient_checkpointing=True
    )
    saving.load_state_dict(plain.state_dict())
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    results = []
    for model in (plain, saving):
        torch.manual_seed(3)
        leaf = memory.clone().requires_grad_()
        y = model(x, leaf, memory_key_padding_mask=MEMORY_PADDING)
        (y.square().sum() + model.get_aux_loss()).backward()
        results.append((y, leaf.grad, [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)


def test_auxiliary_loss():
    model = decoder(use_moe=True, dropout=0.0)
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    model(x, memory)
    h, expected = model.pos_encoder(model.input_projection(x)), 0.0
    for layer in model.layers:
        h, aux_loss, _ = layer(h, memory)
        expected = expected + aux_loss
    torch.testing.assert_close(model.get_aux_loss(), expected)
    model.eval()
    model.forward_one_step(x[:, :1], memory)
    assert model.get_aux_loss() == 0


def test_initial_scale_counts_three_phases():
    torch.manual_seed(0)
    model = TransformerDecoder(3, 1, d_model=128, nhead=4, num_layers=5, dim_feedforward=300)
    for attention in ("self_attn", "cross_attn"):
        weight = model.layers[2].get_submodule(attention).out_proj.weight
        expected = (2 / 256 / 15) ** 0.5
        assert abs(float(weight.detach().std()) / expected - 1) < 0.05
    assert abs(float(model.output_projection.weight.detach().std()) / (2 / 129) ** 0.5 - 1) < 0.2


def test_learns_to_copy_its_memory_one_step_at_a_time():
    """The two halves together: the encoder's memory of a sequence is spoken out again."""
    torch.manual_seed(0)
    encode = TransformerEncoder(2, 32, 4, 1, 64, dropout=0.0)
    decode = TransformerDecoder(
        2, 2, d_model=32, nhead=4, num_layers=1, dim_feedforward=64, dropout=0.0
    )
    parameters = [*encode.parameters(), *decode.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    for _ in range(150):
        x = torch.randn(32, 5, 2)
        shifted = torch.cat([torch.zeros(32, 1, 2), x[:, :-1]], 1)
        loss = (decode(shifted, encode(x)) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encode.eval()
    decode.eval()
    x, state = torch.randn(64, 5, 2), {}
    value, spoken = torch.zeros(64, 1, 2), []
    for _ in range(5):
        value, state = decode.forward_one_step(value, encode(x), state)
        spoken.append(value)
    assert (torch.cat(spoken, 1) - x).square().mean() < 0.1 * x.square().mean()


def test_copies():
    model = decoder(use_moe=True)
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    model(x, memory)
    model.eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x, memory), model(x, memory))
    with torch.no_grad():
        _, state = stepwise(model, x, memory)
        states = (state, copy.deepcopy(state))
        one, two = (model.forward_one_step(x[:, :1], memory, s)[0] for s in states)
    assert torch.equal(one, two)


def test_gradcheck():
    model = decoder(dropout=0.0, num_layers=1).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 2, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x, memory))


def test_too_long_and_wrong_states():
    model = decoder(max_seq_len=3).eval()
    x, memory = torch.randn(B, L, 4), torch.randn(B, S, D)
    state = {}
    for t in range(3):
        model.forward_one_step(x[:, t : t + 1], memory, state)
    kept = state["layers"]
    with pytest.raises(ValueError, match="reaches 4 tokens, but max_len=3"):
        model.forward_one_step(x[:, 3:4], memory, state)
    assert state["layers"] is kept
    with pytest.raises(ValueError, match="state has 3 layers, the decoder 2"):
        decoder(num_layers=2).forward_one_step(x[:, :1], memory, state)
