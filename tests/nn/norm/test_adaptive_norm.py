import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyg_stmamba.nn.norm.adaptive_norm import AdaptiveLayerNorm, AdaptiveRMSNorm
from tests import laws
from tests.laws import close, same

B, L, C, COND = 3, 5, 12, 7
EPS = 0.01


def layer(x):
    return F.layer_norm(x, x.shape[-1:], eps=EPS)


def rms(x):
    return F.rms_norm(x, x.shape[-1:], eps=EPS)


BOTH = pytest.mark.parametrize(
    ("norm_class", "plain"), [(AdaptiveLayerNorm, layer), (AdaptiveRMSNorm, rms)]
)


def randomized(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@BOTH
@pytest.mark.parametrize("cond_dim", [None, COND])
def test_it_starts_as_a_plain_norm(norm_class, plain, cond_dim):
    norm, x = norm_class(C, cond_dim, EPS), 2 + torch.randn(B, L, C)
    cond = None if cond_dim is None else torch.randn(B, COND)
    close(norm(x, cond), plain(x), 1e-6)


@BOTH
def test_learned_scale_and_shift(norm_class, plain):
    norm, x = randomized(norm_class(C, eps=EPS)), 2 + torch.randn(B, L, C)
    assert {n: p.shape for n, p in norm.named_parameters()} == {"gamma": (C,), "beta": (C,)}
    close(norm(x), plain(x) * (1 + norm.gamma) + norm.beta, 1e-5)


@BOTH
@pytest.mark.parametrize("between", [(), (L,), (L, 2)])
@pytest.mark.parametrize("of_each", [False, True])
def test_condition(norm_class, plain, between, of_each):
    norm, x = randomized(norm_class(C, COND, EPS)), 2 + torch.randn(B, *between, C)
    cond = torch.randn(B, *(between if of_each else ()), COND)
    y = norm(x, cond)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:-1])).view(
        -1, x.dim() - 1
    ):
        at = tuple(place.tolist())
        scale, shift = norm.modulation(cond[at] if of_each else cond[at[0]]).split(C)
        close(y[at], plain(x[at]) * (1 + scale) + shift, 1e-5)


@pytest.mark.parametrize("of_each", [False, True])
def test_against_x_transformers(of_each):
    from x_transformers import x_transformers

    x, cond = 2 + torch.randn(B, L, C), torch.randn(B, *([L] if of_each else []), COND)
    for norm_class in (AdaptiveLayerNorm, AdaptiveRMSNorm):
        eps = 1e-5 if norm_class is AdaptiveLayerNorm else 1e-12  # their RMS norm has none
        norm = randomized(norm_class(C, COND, eps))
        other = getattr(x_transformers, norm_class.__name__)(C, COND)
        with torch.no_grad():
            norm.modulation.bias.zero_()
            norm.modulation.weight[C:].zero_()  # nor have theirs a shift
            other.to_gamma.weight.copy_(norm.modulation.weight[:C])
        close(norm(x, cond), other(x, condition=cond), 1e-5)


@BOTH
@pytest.mark.parametrize("cond_dim", [None, COND])
def test_gradcheck(norm_class, plain, cond_dim):
    norm = randomized(norm_class(C, cond_dim)).double()
    x = torch.randn(2, 3, C, dtype=torch.double, requires_grad=True)
    cond = None
    if cond_dim is not None:
        cond = torch.randn(2, COND, dtype=torch.double, requires_grad=True)
    names, weights = zip(*norm.named_parameters())

    def run(x, cond, *weights):
        return torch.func.functional_call(norm, dict(zip(names, weights)), (x, cond))

    assert torch.autograd.gradcheck(run, (x, cond, *weights))


@BOTH
@pytest.mark.parametrize("cond_dim", [None, COND])
def test_half_precision(norm_class, plain, cond_dim):
    """A scale of 1 + 1 / 256 is not rounded to 1 before it is applied."""
    norm = norm_class(C, cond_dim, EPS)
    first = norm.gamma if cond_dim is None else norm.modulation.bias
    nn.init.constant_(first, 2**-8)
    x = (300 + torch.randn(B, L, C)).bfloat16()
    cond = None if cond_dim is None else torch.zeros(B, COND)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x, cond)
    assert y.dtype == torch.bfloat16
    shift = 0.0 if cond_dim is None else 2**-8
    expected = plain(x.double()) * (1 + 2**-8) + shift
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-3)
    y = norm(x.float(), cond)
    close(y, (plain(x.float()) * (1 + 2**-8) + shift), 1e-5)


@BOTH
@pytest.mark.parametrize("cond_dim", [None, COND])
def test_module_laws(norm_class, plain, cond_dim):
    norm, x = randomized(norm_class(C, cond_dim)), torch.randn(B, L, C)
    given = () if cond_dim is None else (torch.randn(B, COND),)
    laws.copies_are_equal(norm.requires_grad_(False), lambda n: n(x, *given))
    laws.inputs_stay_untouched(norm.requires_grad_(True), x, *given)
    laws.layout_does_not_matter(norm, x, *given, tolerance=1e-5)
    norm.reset_parameters()
    assert all((p == 0).all() for p in norm.parameters())
    assert str(norm) == f"{norm_class.__name__}(12, cond_dim={cond_dim}, eps=1e-05)"


@BOTH
def test_bad_conditions_are_named(norm_class, plain):
    x = torch.randn(B, L, C)
    with pytest.raises(ValueError, match=r"shape \[3, 7\].*learns.*itself.*cond_dim=7"):
        norm_class(C)(x, torch.randn(B, COND))
    with pytest.raises(ValueError, match=r"cond_dim=7 needs.*\[3, 7\] or \[3, 5, 7\].*got none"):
        norm_class(C, COND)(x)
    for shape in ((B, COND + 1), (1, COND), (B, 1, COND), (COND,)):
        with pytest.raises(ValueError, match="needs a condition"):
            norm_class(C, COND)(x, torch.randn(shape))
    with pytest.raises(ValueError, match=r"\[\*, 12\], got \[3, 5, 11\]"):
        norm_class(C)(x[..., 1:])


def test_the_condition_moves_the_output():
    norm, x = AdaptiveLayerNorm(C, COND), torch.randn(B, L, C)
    nn.init.normal_(norm.modulation.weight)
    cond = torch.randn(B, COND)
    moved = cond.clone()
    moved[0] += 1
    y, z = norm(x, cond), norm(x, moved)
    assert not torch.equal(y[0], z[0])
    same(y[1:], z[1:])
