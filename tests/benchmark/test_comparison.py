import pytest
import torch

from pyg_stmamba.benchmark import Case, compare, markdown_table, scan_case
from pyg_stmamba.benchmark.contender import of_function


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(30), "weight": torch.randn(30)}


def case_of(inputs, **functions) -> Case:
    peers = [of_function(name, function, inputs) for name, function in functions.items()]
    ours = of_function("ours", lambda x, weight: x * weight, inputs)
    return Case("product", "30 numbers", ours, peers, {"absent": "it is absent"}, 1e-5)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        return grad * weight, grad * x * 1.001


def test_equal_peers_are_measured(inputs, cpu):
    result = compare(case_of(inputs, twice=lambda x, weight: x * (2 * weight) / 2), cpu, 2)
    assert result.ours is not None
    assert result.ours.seconds > 0
    # The output; the gradients of both inputs come as it goes.
    assert result.ours.bytes >= 3 * 120
    assert result.peers["twice"].bytes > result.ours.bytes
    assert result.refused == {}
    assert result.left_out == {"absent": "it is absent"}


def test_no_times_without_parity(inputs, cpu):
    wrong = compare(case_of(inputs, wrong=lambda x, weight: x * weight + 1e-3), cpu, 1)
    assert wrong.ours is None
    assert wrong.peers == {}
    assert wrong.refused["wrong"].worst[0] == "y"


def test_gradients_count_too(inputs, cpu):
    def wrong(x, weight):
        return WrongGradient.apply(x, weight)

    result = compare(case_of(inputs, wrong=wrong, right=lambda x, weight: weight * x), cpu, 1)
    assert list(result.peers) == ["right"]
    assert result.refused["wrong"].worst[0] == "gradient of weight"
    text = markdown_table([result])
    assert "- NO PARITY, no times: product, 30 numbers, wrong: gradient of weight is off" in text
    assert "| wrong |" not in text
    assert "| right |" in text


def test_a_peer_that_fails_is_left_out(inputs, cpu):
    def fails(x, weight):
        raise RuntimeError("no kernel\nfor this machine")

    result = compare(case_of(inputs, broken=fails), cpu, 1)
    assert result.left_out["broken"] == "it failed: RuntimeError: no kernel"
    assert result.ours is not None
    assert result.peers == {}


def test_the_forward_pass_alone(rows, cpu):
    trained = compare(scan_case(rows), cpu, 1)
    alone = compare(scan_case(rows)._replace(train=False), cpu, 1)
    assert list(alone.parity["torch loop"].errors) == ["y"]
    assert alone.ours.bytes < trained.ours.bytes
