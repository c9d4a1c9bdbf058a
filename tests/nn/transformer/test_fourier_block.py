import numpy as np
import pytest
import torch

from pyg_stmamba.nn.transformer.fourier_block import FourierBlock
from tests import laws
from tests.laws import close

D, HEADS = 6, 2


def one_by_one(block: FourierBlock, x: np.ndarray) -> np.ndarray:
    """By the sums of the definition, one series, head and coefficient after the other."""
    length, size = x.shape[-2], D // HEADS
    weight = block.weight.detach().double().numpy()
    weight = weight[..., 0] + 1j * weight[..., 1]  # [heads, E in, E out, modes]
    kept, n = block.modes.index(length).tolist(), np.arange(length)
    y = np.zeros(x.shape)
    for row in np.ndindex(*x.shape[:-2]):
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            for slot, f in enumerate(kept):
                wave = np.exp(-2j * np.pi * f * n / length) / np.sqrt(length)
                coefficient = (x[row][:, own] * wave[:, None]).sum(0)
                mixed = [
                    sum(coefficient[e] * weight[head, e, o, slot] for e in range(size))
                    for o in range(size)
                ]
                part = np.conj(wave)[:, None] * np.array(mixed)
                both = f not in (0, length / 2)  # f and -f
                y[row][:, own] += part.real * (2 if both else 1)
    return y


def with_identity(modes: int) -> FourierBlock:
    block = FourierBlock(D, HEADS, modes)
    with torch.no_grad():
        block.weight.zero_()
        for e in range(D // HEADS):
            block.weight[:, e, e, :, 0] = 1.0
    return block


@pytest.mark.parametrize("length", [1, 2, 5, 12, 13, 30])
@pytest.mark.parametrize(("modes", "mode_select"), [(4, "low"), (4, "random"), (32, "low")])
def test_against_the_sums(length, modes, mode_select):
    block = FourierBlock(D, HEADS, modes, mode_select)
    x = torch.randn(2, 3, length, D)
    expected = one_by_one(block, x.double().numpy())
    close(block(x), torch.from_numpy(expected).float(), 1e-5)
    close(block.double()(x.double()), torch.from_numpy(expected), 1e-7)


@pytest.mark.parametrize("length", [1, 2, 7, 12, 62, 63, 96, 97])
def test_identity(length):
    x = torch.randn(3, length, D)
    close(with_identity(49)(x), x, 1e-6)  # one more than goes by products


@pytest.mark.parametrize("mode_select", ["low", "random"])
def test_tones_outside_of_the_modes_are_stopped(mode_select):
    block = FourierBlock(D, HEADS, 5, mode_select)
    kept = block.modes.index(64).tolist()
    step = torch.arange(64)
    for f in range(33):
        tone = torch.cos(2 * torch.pi * f * step / 64 + 0.3).unsqueeze(-1).expand(64, D)
        size = block(tone).abs().max()
        assert (size > 1e-2) if f in kept else (size < 1e-5)


def test_a_tone_keeps_its_frequency():
    """The published code puts what it makes of the frequency of a slot into the slot itself."""
    block = FourierBlock(D, HEADS, 3, "random")
    found = 0
    for f in block.modes.index(64).tolist():
        tone = torch.cos(2 * torch.pi * f * torch.arange(64) / 64).unsqueeze(-1).expand(64, D)
        power = torch.fft.rfft(block(tone), dim=0).abs().sum(-1)
        assert power.argmax() == f
        assert power[f] > 0.999 * power.sum()
        found += f > 3
    assert found > 0


def test_initialization_keeps_the_size_of_coefficients():
    block = FourierBlock(64, 2, 16)
    assert block.weight.shape == (2, 32, 32, 16, 2)
    assert block.weight.square().sum(-1).mean().item() == pytest.approx(1 / 32, rel=0.05)
    assert block.weight[..., 0].std().item() == pytest.approx(1 / 8, rel=0.05)
    x = torch.randn(500, 30, 64)
    assert block(x).std().item() == pytest.approx(1.0, rel=0.1)


def test_gradients():
    block = FourierBlock(4, 2, 3, "random").double()
    x = torch.randn(2, 9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x)

    def of_weight(weight):
        return torch.func.functional_call(block, {"weight": weight}, (x.detach(),))

    assert torch.autograd.gradcheck(of_weight, block.weight)


def test_as_a_module():
    block, x = FourierBlock(D, HEADS, 4, "random"), torch.randn(3, 20, D)
    laws.copies_are_equal(block, lambda block: block(x))
    laws.inputs_stay_untouched(block, x)
    laws.layout_does_not_matter(block, x)
    laws.rows_are_independent(block, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    block, x = FourierBlock(D, HEADS, 4), torch.randn(3, 20, D)
    expected = block(x)
    with torch.autocast("cpu", dtype):
        close(block(x), expected, 1e-6)
    y = block.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    close(y.float(), expected, 3e-2)


def test_bad_options():
    with pytest.raises(ValueError, match=r"d_model \(6\).*n_heads \(4\)"):
        FourierBlock(6, 4)
    with pytest.raises(ValueError, match="'high'"):
        FourierBlock(6, 2, mode_select="high")
    with pytest.raises(ValueError, match=r"D = 6.*\[3, 20, 5\]"):
        FourierBlock(6, 2)(torch.randn(3, 20, 5))


def test_repr():
    expected = "FourierBlock(6, n_heads=2, modes=4, mode_select='random')"
    assert str(FourierBlock(6, 2, 4, "random")).split("\n")[0] == expected
