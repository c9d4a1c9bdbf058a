import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.nn.transformer.router import TopKRouter, load_balancing_loss, router_z_loss
from tests import laws
from tests.laws import close, same

T, D, E = 11, 6, 5


def router(top_k: int = 2, **options) -> TopKRouter:
    op = TopKRouter(D, E, top_k, **options)
    nn.init.normal_(op.weight)
    return op


@pytest.mark.parametrize("top_k", [1, 2, 5])
@pytest.mark.parametrize("normalize_gates", [True, False])
def test_against_numpy(top_k, normalize_gates):
    op, x = router(top_k, normalize_gates=normalize_gates), torch.randn(3, T, D)
    logits, gates, experts = op(x)
    z = x.numpy().astype(float) @ op.weight.detach().numpy().astype(float).T
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    order = np.argsort(-p, axis=-1)[..., :top_k]
    expected = np.take_along_axis(p, order, -1)
    if normalize_gates and top_k > 1:
        expected /= expected.sum(-1, keepdims=True)
    np.testing.assert_allclose(logits.detach(), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(experts, order)
    np.testing.assert_allclose(gates.detach(), expected, rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_router_has_a_gradient(top_k):
    op = router(top_k)
    gates = op(torch.randn(T, D)).gates
    (gates * torch.randn_like(gates)).sum().backward()
    assert op.weight.grad.abs().max() > 1e-3


def test_autocast_stays_in_float32():
    op, x = router(), torch.randn(T, D)
    with torch.autocast("cpu", torch.bfloat16):
        found = op(x)
    for a, b in zip(found, op(x)):
        same(a, b)
    half = op(x.bfloat16())
    assert half.logits.dtype == half.gates.dtype == torch.float32
    close(half.logits, op(x.bfloat16().float()).logits, 1e-6)
    op.bfloat16()
    assert op(x.bfloat16()).gates.dtype == torch.float32


def test_jitter_in_training_only():
    op, quiet, x = router(jitter=0.1), router(), torch.randn(T, D)
    quiet.load_state_dict(op.state_dict())
    assert not torch.equal(op(x).logits, op(x).logits)
    with torch.no_grad():
        op.weight.copy_(torch.eye(E, D))
        noise = op(torch.ones(10_000, D)).logits
    assert 0.9 <= noise.min() < 0.91
    assert 1.09 < noise.max() <= 1.1
    quiet.load_state_dict(op.state_dict())
    same(op.eval()(x).logits, quiet(x).logits)


def test_initialization():
    op = TopKRouter(512, 64)
    assert op.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert op.weight.mean().abs().item() < 1e-3


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_balance_against_mixtral(top_k, padded):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    op = router(top_k)
    logits, _, experts = op(torch.randn(2, T, D))
    mask = None
    if padded:
        mask = torch.rand(2, T) > 0.5
    right = load_balancing_loss_func(
        (logits.flatten(0, 1),), E, top_k, None if mask is None else ~mask
    )
    close(load_balancing_loss(logits, experts, mask), right / top_k, 1e-6)


@pytest.mark.parametrize("padded", [False, True])
def test_z_loss_against_switch(padded):
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        router_z_loss_func,
    )

    logits = 3 * torch.randn(2, T, E)
    if not padded:
        close(router_z_loss(logits), router_z_loss_func(logits), 1e-6)
        return
    mask = torch.rand(2, T) > 0.5
    real = logits[~mask]
    close(router_z_loss(logits, mask), router_z_loss_func(real.unsqueeze(0)), 1e-6)


@pytest.mark.parametrize("top_k", [1, 2])
def test_bounds_of_the_balance(top_k):
    """1 where demand is alike, E where all want the same one."""
    experts = torch.stack([(torch.arange(E) + i) % E for i in range(top_k)], -1)
    close(load_balancing_loss(torch.zeros(E, E), experts), torch.tensor(1.0), 1e-6)
    logits = torch.zeros(T, E)
    logits[:, 2] = 50.0
    close(load_balancing_loss(logits, torch.full((T, 1), 2)), torch.tensor(float(E)), 1e-5)


def test_experts_that_nobody_wants_count():
    """Also the last ones."""
    logits = torch.randn(T, E)
    loss = load_balancing_loss(logits, torch.zeros(T, 2, dtype=torch.long))
    close(loss, E * logits.softmax(-1)[:, 0].mean(), 1e-6)


def test_the_losses_push_towards_balance_and_small_logits():
    logits = torch.zeros(T, E)
    logits[:, 0] = 1.0
    logits.requires_grad_()
    loss = load_balancing_loss(logits, torch.zeros(T, 1, dtype=torch.long))
    gradient = torch.autograd.grad(loss, logits)[0]
    assert (gradient[:, 0] > 0).all()
    assert (gradient[:, 1:] < 0).all()
    assert (torch.autograd.grad(router_z_loss(logits), logits)[0] > 0).all()


def test_of_no_token_there_is_no_loss():
    logits = torch.randn(T, E, requires_grad=True)
    mask, experts = torch.ones(T, dtype=torch.bool), torch.zeros(T, 2, dtype=torch.long)
    loss = load_balancing_loss(logits, experts, mask) + router_z_loss(logits, mask)
    assert loss.item() == 0.0
    loss.backward()
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_losses_of_half_precision_are_float32(masked):
    logits = 8 * torch.randn(T, E)
    mask = torch.arange(T) > 7 if masked else None
    experts = logits.topk(2).indices
    for loss in (
        load_balancing_loss(logits.bfloat16(), experts, mask),
        router_z_loss(logits.bfloat16(), mask),
    ):
        assert loss.dtype == torch.float32
    close(
        router_z_loss(logits.bfloat16(), mask),
        router_z_loss(logits.bfloat16().double(), mask).float(),
        1e-5,
    )


def test_module_laws():
    op, x = router(), torch.randn(3, T, D)
    laws.copies_are_equal(op.requires_grad_(False), lambda op: op(x).gates)
    before = x.clone()
    TopKRouter(D, E, jitter=0.1)(x)
    same(x, before)
    assert str(op) == "TopKRouter(6, num_experts=5, top_k=2)"


def test_bad_options():
    for top_k in (0, 6):
        with pytest.raises(ValueError, match=f"top_k={top_k} .* between 1 and .* 5"):
            TopKRouter(D, E, top_k)
    for jitter in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"jitter={jitter} must be at least 0 and below 1"):
            TopKRouter(D, E, jitter=jitter)
