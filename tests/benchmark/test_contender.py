import torch

from pyg_stmamba.benchmark.contender import of_function, of_module

LAYOUT = {"x": "n t c -> t n c", "y": "n t c -> t n c"}


def test_another_layout_gives_the_same_results():
    inputs = {"x": torch.randn(3, 4, 5), "weight": torch.randn(5)}
    ours = of_function("ours", lambda x, weight: (x * weight).cumsum(1), inputs)
    theirs = of_function("theirs", lambda x, weight: (x * weight).cumsum(0), inputs, LAYOUT)
    assert theirs.leaves["x"].shape == (4, 3, 5)
    assert theirs.leaves["x"].is_contiguous()
    cotangent = torch.randn(3, 4, 5)
    right = ours.results(cotangent)
    found = theirs.results(theirs.cotangent(cotangent))
    assert list(right) == ["y", "gradient of x", "gradient of weight"]
    for name, value in right.items():
        torch.testing.assert_close(found[name], value)
    assert list(ours.results(None)) == ["y"]


def test_a_module_gets_the_weights_of_ours():
    linear = torch.nn.Linear(5, 2)
    x = torch.randn(3, 5)
    contender = of_module("module", torch.nn.Linear(5, 2), linear.state_dict(), x)
    assert list(contender.leaves) == ["x", "weight", "bias"]
    y, grads = contender.step(torch.ones(3, 2))
    torch.testing.assert_close(y, linear(x))
    torch.testing.assert_close(grads[2], torch.full((2,), 3.0))
    assert not x.requires_grad
