import numpy as np
import pytest
import torch

from pyg_stmamba.nn.transformer import PositionalEncoding


def waves(steps, size):
    """The formula of the paper, entry by entry."""
    table = np.zeros((steps, size))
    for t in range(steps):
        for i in range(size):
            phase = t / 10000 ** (2 * (i // 2) / size)
            table[t, i] = np.sin(phase) if i % 2 == 0 else np.cos(phase)
    return torch.from_numpy(table)


@pytest.mark.parametrize("size", [6, 7, 1])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_formula(size, scale):
    x = torch.randn(2, 9, size, dtype=torch.float64)
    encoding = PositionalEncoding(size, scale=scale)
    torch.testing.assert_close(encoding(x), x + scale * waves(9, size), atol=1e-12, rtol=0)


def test_offset_goes_on_where_the_last_tokens_ended():
    x = torch.randn(2, 9, 6)
    encoding = PositionalEncoding(6)
    parts = torch.cat([encoding(x[:, :4]), encoding(x[:, 4:], offset=4)], 1)
    torch.testing.assert_close(parts, encoding(x), atol=0, rtol=0)


def test_input_stays_as_it_is():
    x = torch.randn(2, 9, 6)
    kept = x.clone()
    PositionalEncoding(6)(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize(("steps", "offset"), [(9, 0), (1, 8), (4, 5)])
def test_too_long(steps, offset):
    with pytest.raises(ValueError, match=f"reaches {steps + offset} tokens, but max_len=8"):
        PositionalEncoding(6, max_len=8)(torch.randn(2, steps, 6), offset)


def test_repr():
    encoding = PositionalEncoding(6, max_len=8, scale=0.5)
    assert str(encoding) == "PositionalEncoding(6, max_len=8, scale=0.5)"
    assert not list(encoding.parameters())
