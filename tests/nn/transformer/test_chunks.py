import pytest
import torch

from pyg_stmamba.nn.transformer.chunks import in_chunks
from tests.laws import same


@pytest.mark.parametrize(("size", "lengths"), [(None, [7]), (9, [7]), (7, [7]), (3, [3, 3, 1])])
@pytest.mark.parametrize("grad", [False, True])
def test_how_many_at_a_time(size, lengths, grad):
    seen = []

    def square(x):
        seen.append(x.size(1))
        return x * x

    x = torch.randn(2, 7, 3, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        y = in_chunks(square, x, size, dim=1)
    same(y, x * x)
    assert seen == lengths
    if grad:
        y.sum().backward()
        same(x.grad, 2 * x.detach())
        assert len(seen) == len(lengths) * (1 if len(lengths) == 1 else 2)  # computed again


def test_noise_is_the_same_when_computed_again():
    def noisy(x):
        return x * torch.rand_like(x)

    x = torch.ones(2, 8, 3, requires_grad=True)
    y = in_chunks(noisy, x, 3, dim=1)
    y.sum().backward()
    same(x.grad, y.detach())
