import itertools
import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyg_stmamba.benchmark import peak_memory
from pyg_stmamba.nn.transformer.mixture_of_experts import MixtureOfExperts, MoEFeedForward
from pyg_stmamba.nn.transformer.router import load_balancing_loss, router_z_loss
from tests import laws
from tests.laws import close, same

B, L, D, FF, E = 2, 7, 6, 10, 4
KINDS = pytest.mark.parametrize("use_swiglu", [True, False])


def mixture(num_experts: int = E, top_k: int = 2, **options) -> MixtureOfExperts:
    """Parameters are large enough for tokens to part."""
    op = MixtureOfExperts(D, FF, num_experts, top_k, **options)
    for parameter in op.parameters():
        nn.init.normal_(parameter, std=0.5)
    return op


def expert(op: MixtureOfExperts, e: int, x: torch.Tensor) -> torch.Tensor:
    """A single expert, as its formula is."""
    gated = isinstance(getattr(op, "gate_up_proj", None), nn.Parameter)
    weight, bias = (op.gate_up_proj, op.gate_up_bias) if gated else (op.up_proj, op.up_bias)
    h = x @ weight[e].T + (0 if bias is None else bias[e])
    h = F.silu(h[..., :FF]) * h[..., FF:] if gated else F.gelu(h)
    return h @ op.down_proj[e].T + (0 if op.down_bias is None else op.down_bias[e])


def by_loop(op: MixtureOfExperts, tokens: torch.Tensor, capacity: float) -> torch.Tensor:
    """Token by token: first choices in order, then second ones, until an expert is full."""
    probabilities = (tokens @ op.router.weight.T).softmax(-1)
    values, choices = probabilities.topk(op.top_k)
    if op.top_k > 1:
        values = values / values.sum(-1, keepdim=True)
    y, taken = torch.zeros_like(tokens), [0] * op.num_experts
    for k, t in itertools.product(range(op.top_k), range(len(tokens))):
        e = int(choices[t, k])
        if taken[e] < capacity:
            taken[e] += 1
            y[t] += values[t, k] * expert(op, e, tokens[t])
    return y


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_against_mixtral(top_k, padded):
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    op = mixture(top_k=top_k)
    config = MixtralConfig(
        hidden_size=D,
        intermediate_size=FF,
        num_local_experts=E,
        num_experts_per_tok=top_k,
        experts_implementation="eager",
    )
    other = MixtralSparseMoeBlock(config)
    other.load_state_dict(
        {
            "gate.weight": op.router.weight,
            "experts.gate_up_proj": op.gate_up_proj,
            "experts.down_proj": op.down_proj,
        }
    )
    x = torch.randn(B, L, D, requires_grad=True)
    padding = torch.rand(B, L) > 0.6 if padded else None
    y, expected = op(x, padding)[0], other(x)
    if top_k == 1:  # theirs makes a single gate 1, so that the router does not learn
        expected = expected * (x @ op.router.weight.T).softmax(-1).amax(-1, keepdim=True)
    if padded:
        expected = expected.masked_fill(padding.unsqueeze(-1), 0.0)
    close(y, expected, 1e-5)
    weight = torch.randn_like(y)
    ours = [op.router.weight, op.gate_up_proj, op.down_proj]
    theirs = [other.gate.weight, other.experts.gate_up_proj, other.experts.down_proj]
    found = torch.autograd.grad((y * weight).sum(), [x, *ours])
    leaves = [x, op.router.weight, *theirs] if top_k == 1 else [x, *theirs]
    right = list(torch.autograd.grad((expected * weight).sum(), leaves))
    if top_k == 1:
        right[1] = right[1] + right.pop(2)  # through the gate, and through theirs, which is zero
    for a, b in zip(found, right, strict=True):
        close(a, b, 1e-5)


@KINDS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_against_a_loop(use_swiglu, bias, top_k):
    op, x = mixture(top_k=top_k, use_swiglu=use_swiglu, bias=bias), torch.randn(B, L, D)
    close(op(x)[0].flatten(0, 1), by_loop(op, x.flatten(0, 1), math.inf), 1e-5)


@KINDS
def test_one_expert_is_dense(use_swiglu):
    op, x = mixture(1, 1, use_swiglu=use_swiglu, bias=True), torch.randn(B, L, D)
    close(op(x)[0], expert(op, 0, x), 1e-5)


def test_all_experts_are_a_soft_mixture():
    op, x = mixture(top_k=E), torch.randn(B, L, D)
    p = (x @ op.router.weight.T).softmax(-1)
    expected = sum(p[..., e, None] * expert(op, e, x) for e in range(E))
    close(op(x)[0], expected, 1e-5)


def test_gates_may_stay_probabilities():
    op, x = mixture(normalize_gates=False), torch.randn(B, L, D)
    p = (x @ op.router.weight.T).softmax(-1)
    normalized = mixture()
    normalized.load_state_dict(op.state_dict())
    close(op(x)[0], normalized(x)[0] * p.topk(2).values.sum(-1, keepdim=True), 1e-5)


def test_the_order_of_experts_does_not_matter():
    op, other, x = mixture(bias=True), mixture(bias=True), torch.randn(B, L, D)
    order = torch.tensor([2, 0, 3, 1])
    state = {name: parameter[order] for name, parameter in op.state_dict().items()}
    other.load_state_dict(state)
    (y, aux), (z, aux2) = op(x), other(x)
    close(y, z, 1e-6)
    close(aux, aux2, 1e-6)


def test_the_order_of_tokens_does_not_matter():
    op, x, order = mixture(), torch.randn(1, B * L, D), torch.randperm(B * L)
    close(op(x[:, order])[0], op(x)[0][:, order], 1e-6)
    close(op(x.view(B, L, D))[0].view_as(x), op(x)[0], 1e-6)


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_capacity_against_a_loop(factor, top_k, padded):
    op = mixture(top_k=top_k, capacity_factor=factor)
    nn.init.zeros_(op.router.weight[:, 1:])  # two crowds, whose choices overlap from the second on
    x = torch.randn(B, L, D)
    padding = torch.zeros(B, L, dtype=torch.bool)
    if padded:
        padding[0, ::2] = True
    real = x[~padding]
    capacity = max(1, math.ceil(Fraction(str(factor)) * top_k * len(real) / E))
    expected = torch.zeros(B, L, D)
    expected[~padding] = by_loop(op, real, capacity)
    close(op(x, padding)[0], expected, 1e-5)
    dropless = mixture(top_k=top_k)
    dropless.load_state_dict(op.state_dict())
    assert not torch.equal(op(x, padding)[0], dropless(x, padding)[0])
    # In evaluation nothing is dropped unless that is asked for too.
    close(op.eval()(x, padding)[0], dropless(x, padding)[0], 1e-6)
    op.eval_capacity_factor = factor
    close(op(x, padding)[0], expected, 1e-5)


def test_capacity_in_closed_form():
    """All want the same expert, which takes the first C; C does not depend on the channels."""
    for factor, num_tokens, right in (
        (1.0, 8, 2),
        (1.25, 8, 3),
        (0.01, 8, 1),
        (2.0, 9, 5),
        (1.12, 25, 7),
    ):
        op = mixture(top_k=1, capacity_factor=factor)
        nn.init.zeros_(op.router.weight)
        op.router.weight.data[1] = 1.0
        y, _ = op(torch.rand(1, num_tokens, D))
        assert (y[0] != 0).any(-1).tolist() == [True] * right + [False] * (num_tokens - right)


def test_losses_count_what_is_dropped():
    op, free = mixture(capacity_factor=0.1), mixture()
    free.load_state_dict(op.state_dict())
    x = torch.randn(B, L, D)
    same(op(x)[1], free(x)[1])


def test_losses():
    op, x = mixture(aux_weight=0.3, z_weight=0.7), torch.randn(B, L, D)
    logits, _, experts = op.router(x)
    expected = 0.3 * load_balancing_loss(logits, experts) + 0.7 * router_z_loss(logits)
    aux = op(x)[1]
    assert aux.shape == ()
    close(aux, expected, 1e-6)
    gradient = torch.autograd.grad(aux, op.router.weight)[0]
    assert gradient.abs().max() > 1e-3
    balance, z = mixture(z_weight=0.0)(x)[1], mixture(aux_weight=0.0)(x)[1]
    assert balance > 0
    assert z > 0
    # Of each call its own, and none in evaluation.
    same(op(x)[1], aux)
    assert op(2 * x)[1] != aux
    assert op.eval()(x)[1].item() == 0.0
    assert not op(x)[1].requires_grad


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_output_moves_the_router(top_k):
    op = mixture(top_k=top_k)
    y, _ = op(torch.randn(B, L, D))
    assert torch.autograd.grad(y.square().sum(), op.router.weight)[0].abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"capacity_factor": 0.7}, {"use_swiglu": False}])
def test_padding_has_no_influence(options):
    op, x = mixture(**options), torch.randn(B, L, D)
    padding = torch.zeros(B, L, dtype=torch.bool)
    padding[0, 4:] = True
    padding[1, :2] = True
    y, aux = op(x, padding)
    assert (y[padding] == 0).all()
    real, aux2 = op(x[~padding].unsqueeze(0))
    close(y[~padding], real[0], 1e-6)
    close(aux, aux2, 1e-6)
    for junk in (1e4, float("nan")):
        leaf = x.masked_fill(padding.unsqueeze(-1), junk).requires_grad_()
        z, aux3 = op(leaf, padding)
        same(z, y)
        same(aux3, aux)
        gradient = torch.autograd.grad(z.square().sum() + aux3, leaf)[0]
        assert (gradient[padding] == 0).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("capacity_factor", [None, 1.0])
def test_nothing_but_padding(capacity_factor):
    op, x = mixture(capacity_factor=capacity_factor), torch.randn(B, L, D, requires_grad=True)
    y, aux = op(x, torch.ones(B, L, dtype=torch.bool))
    assert (y == 0).all()
    assert aux.item() == 0.0
    (y.sum() + aux).backward()
    assert (x.grad == 0).all()
    assert all(p.grad is None or (p.grad == 0).all() for p in op.parameters())
    assert op(x[:, :0])[0].shape == (B, 0, D)


def test_experts_that_nobody_wants_have_gradient_zero():
    op = mixture(top_k=1)
    nn.init.zeros_(op.router.weight)
    op.router.weight.data[1] = 1.0
    y, _ = op(torch.rand(B, L, D))
    y.sum().backward()
    wanted = torch.tensor([False, True, False, False])
    assert ((op.gate_up_proj.grad != 0).flatten(1).any(1) == wanted).all()
    assert ((op.down_proj.grad != 0).flatten(1).any(1) == wanted).all()


@KINDS
def test_operations_do_not_grow_with_the_number_of_experts(use_swiglu):
    """Two for each product, and twice as many again backwards: those of the router, and of k
    experts a token, that is k / E of what all would take."""
    x = torch.randn(B, L, D, requires_grad=True)
    matrices = 3 if use_swiglu else 2
    for num_experts, top_k in ((2, 2), (4, 2), (8, 2), (16, 2), (4, 1)):
        op = mixture(num_experts, top_k, use_swiglu=use_swiglu)
        with FlopCounterMode(display=False) as counter:
            y = op(x)[0]
        of_all = B * L * 2 * matrices * D * FF * num_experts
        right = B * L * 2 * D * num_experts + of_all * top_k // num_experts
        assert counter.get_total_flops() == right
        with FlopCounterMode(display=False) as counter:
            y.sum().backward()
        assert counter.get_total_flops() == 2 * right


@KINDS
@pytest.mark.parametrize("top_k", [1, 2])
def test_gradcheck(use_swiglu, top_k):
    op = mixture(top_k=top_k, use_swiglu=use_swiglu, bias=True, capacity_factor=1.2).double()
    x = torch.randn(1, 5, D, dtype=torch.double, requires_grad=True)
    padding = torch.tensor([[False, False, True, False, False]])
    names, weights = zip(*op.named_parameters())

    def run(x, *weights):
        return torch.func.functional_call(op, dict(zip(names, weights)), (x, padding))

    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("half", [False, True])
def test_bfloat16(half):
    """Tokens go where they go in float32; by autocast, or with all weights in half precision."""
    op, x = mixture(), torch.randn(B, L, D)
    expected, right = op(x)
    if half:
        op, x = op.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=not half):
        y, aux = op(x)
    assert y.dtype == x.dtype
    assert aux.dtype == torch.float32
    close(y.float(), expected, 0.1)
    close(aux, right, 1e-2 if half else 0.0)
    (y.square().sum() + aux).backward()
    assert all(p.grad.isfinite().all() for p in op.parameters())


def test_dropout_within_experts_in_training_only():
    op, x = mixture(dropout=0.5), torch.randn(B, L, D)
    (y, aux), (z, aux2) = op(x), op(x)
    assert not torch.equal(y, z)
    same(aux, aux2)
    op.eval()
    same(op(x)[0], op(x)[0])


def test_jitter_moves_the_choice_only():
    op, x = mixture(1, 1, jitter=0.5), torch.randn(B, L, D)
    same(op(x)[0], op.eval()(x)[0])
    op = mixture(jitter=0.5)
    assert not torch.equal(op(x)[0], op(x)[0])
    same(op.eval()(x)[0], op(x)[0])


def test_chunks():
    whole, chunked = mixture(), mixture(chunk_size=3)
    chunked.load_state_dict(whole.state_dict())
    x = torch.randn(B, L, D)
    close(chunked(x)[0], whole(x)[0], 1e-6)
    x = torch.randn(1, 512, D)
    whole, chunked = MixtureOfExperts(D, 128), MixtureOfExperts(D, 128, chunk_size=32)

    def peak(op):
        return peak_memory(lambda: op(x)[0].sum().backward(), x.device)

    assert peak(chunked) <= 0.6 * peak(whole)


class Output(nn.Module):
    def __init__(self, op: MixtureOfExperts) -> None:
        super().__init__()
        self.op = op

    def forward(self, x):
        return self.op(x)[0]


@KINDS
def test_module_laws(use_swiglu):
    op = Output(mixture(use_swiglu=use_swiglu, bias=True, capacity_factor=1.0, jitter=0.1))
    x = torch.randn(B, L, D)
    laws.inputs_stay_untouched(op, x.requires_grad_())
    x = x.detach()
    laws.copies_are_equal(op.eval().requires_grad_(False), lambda op: op(x))
    laws.layout_does_not_matter(op, x)
    before = op(x)
    op.op.reset_parameters()
    assert not torch.equal(op(x), before)


def test_initialization():
    op = MixtureOfExperts(64, 128, bias=True)
    for weight in (op.gate_up_proj, op.down_proj):
        assert weight.std().item() == pytest.approx((2 / (64 + 128)) ** 0.5, rel=0.02)
    assert (op.gate_up_bias == 0).all()
    assert (op.down_bias == 0).all()
    assert op.router.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_names():
    assert MoEFeedForward is MixtureOfExperts
    assert list(mixture().state_dict()) == ["gate_up_proj", "down_proj", "router.weight"]
    plain = mixture(use_swiglu=False, bias=True).state_dict()
    assert plain.keys() == {"up_proj", "up_bias", "down_proj", "down_bias", "router.weight"}
    assert "6, d_ff=10, num_experts=4" in str(mixture())


def test_bad_options():
    with pytest.raises(ValueError, match=r"top_k=5 must be between 1 and .* 4"):
        mixture(top_k=5)
    for name in ("capacity_factor", "eval_capacity_factor", "chunk_size"):
        with pytest.raises(ValueError, match=f"{name}=0 must be positive, or None"):
            mixture(**{name: 0})
    with pytest.raises(ValueError, match="num_experts=0 must be at least 1"):
        mixture(0)
    with pytest.raises(ValueError, match=r"'tanh'.*\['gelu', 'relu', 'silu', 'swish'\]"):
        mixture(activation="tanh")
    with pytest.warns(UserWarning, match="'relu' has no effect with use_swiglu=True"):
        mixture(activation="relu")
    op, x = mixture(), torch.randn(B, L, D)
    with pytest.raises(ValueError, match=r"\[B, L, 6\], got a tensor of shape \[2, 7, 5\]"):
        op(x[..., 1:])
    with pytest.raises(ValueError, match=r"boolean \(True = padding\).*\[2, 7\].*float32"):
        op(x, torch.zeros(B, L))
    with pytest.raises(ValueError, match=r"of shape \[2, 6\]"):
        op(x, torch.zeros(B, L - 1, dtype=torch.bool))
