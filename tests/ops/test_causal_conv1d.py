import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensorMode

from pyg_stmamba.ops import backend, causal_conv1d
from pyg_stmamba.ops.causal_conv1d import IMPLEMENTATIONS, example_inputs

ON_CPU = [
    entry.name for entry in IMPLEMENTATIONS if not entry.reasons_against(*example_inputs("cpu"))
]
FASTER = [name for name in ON_CPU if name != "reference"]


def make_inputs(*rows: int, steps: int, channels: int = 5, width: int = 4, dtype=torch.float32):
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    return {
        "x": draw(*rows, steps, channels),
        "weight": draw(channels, width),
        "bias": draw(channels),
        "initial_state": draw(*rows, width - 1, channels),
    }


def outputs_and_gradients(inputs: dict[str, Tensor], **kwargs) -> list[Tensor]:
    y, state = causal_conv1d(**inputs, return_final_state=True, **kwargs)
    loss = y.float().sin().sum() + state.float().square().sum()
    return [y, state, *torch.autograd.grad(loss, list(inputs.values()))]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, atol=tolerance, rtol=tolerance)


def skip_unless_it_runs(name: str, inputs: dict[str, Tensor]) -> None:
    entry = next(entry for entry in IMPLEMENTATIONS if entry.name == name)
    if reasons := entry.reasons_against(*list(inputs.values())[:3], None, inputs["initial_state"]):
        pytest.skip(f"{name}: {reasons}")


@pytest.mark.parametrize("name", ON_CPU)
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("steps", [1, 2, 63])
@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_against_torch_convolution(name, activation, steps, width):
    inputs = make_inputs(3, steps=steps, width=width)
    x, weight, bias, state = inputs.values()
    padded = torch.cat([state, x], dim=1)
    expected = F.conv1d(padded.transpose(1, 2), weight.unsqueeze(1), bias, groups=5)
    expected = F.silu(expected) if activation else expected
    expected, last = expected.transpose(1, 2), padded[:, steps:]
    loss = expected.sin().sum() + last.square().sum()
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    actual = outputs_and_gradients(inputs, activation=activation, implementation=name)
    assert_close(actual, [expected, last, *gradients])


@pytest.mark.parametrize("name", FASTER)
@pytest.mark.parametrize("rows", [(), (65,), (3, 2, 2)])
@pytest.mark.parametrize("absent", ["bias", "initial_state", None])
def test_parity(name, rows, absent):
    inputs = make_inputs(*rows, steps=17)
    inputs.pop(absent, None)
    ours, expected = (
        outputs_and_gradients(inputs, activation="silu", implementation=which)
        for which in (name, "reference")
    )
    assert_close(ours, expected, 1e-4)


@pytest.mark.parametrize("name", ON_CPU)
def test_chunks_are_the_whole(name):
    inputs = make_inputs(3, steps=20)
    x, weight, bias, state = inputs.values()
    whole, last = causal_conv1d(
        **inputs, activation="silu", return_final_state=True, implementation=name
    )
    parts = []
    for part in x.split([1, 2, 7, 10], dim=1):
        y, state = causal_conv1d(
            part,
            weight,
            bias,
            "silu",
            initial_state=state,
            return_final_state=True,
            implementation=name,
        )
        parts.append(y)
    assert_close([torch.cat(parts, dim=1), state], [whole, last], 1e-6)


@pytest.mark.parametrize("name", ON_CPU)
def test_the_future_moves_nothing(name):
    inputs = make_inputs(2, steps=9)
    before = causal_conv1d(**inputs, implementation=name)
    inputs["x"] = torch.cat([inputs["x"][:, :5], torch.full((2, 4, 5), torch.nan)], dim=1)
    assert torch.equal(causal_conv1d(**inputs, implementation=name)[:, :5], before[:, :5])


@pytest.mark.parametrize("name", ON_CPU)
def test_gradcheck(name):
    inputs = make_inputs(2, steps=5, channels=2, width=3, dtype=torch.float64)
    skip_unless_it_runs(name, inputs)

    def run(x, weight, bias, state):
        return causal_conv1d(
            x,
            weight,
            bias,
            "silu",
            initial_state=state,
            return_final_state=True,
            implementation=name,
        )

    assert torch.autograd.gradcheck(run, tuple(inputs.values()))


@pytest.mark.parametrize("name", [*ON_CPU, None])
@pytest.mark.parametrize(("rows", "steps"), [((0,), 5), ((3,), 0)])
def test_empty(name, rows, steps):
    inputs = make_inputs(*rows, steps=steps)
    if name is not None:
        skip_unless_it_runs(name, inputs)
    y, state, *gradients = outputs_and_gradients(inputs, implementation=name)
    assert y.shape == (*rows, steps, 5)
    if steps == 0:
        torch.testing.assert_close(state, inputs["initial_state"])
    assert [g.shape for g in gradients] == [x.shape for x in inputs.values()]


@pytest.mark.parametrize("name", FASTER)
def test_very_many_rows(name):
    inputs = make_inputs(70_000, steps=3, channels=1)
    exact = {key: value.detach().double().requires_grad_() for key, value in inputs.items()}
    ours = outputs_and_gradients(inputs, activation="silu", implementation=name)
    right = outputs_and_gradients(exact, activation="silu", implementation="reference")
    # Sums over all rows too; one float32 term after the other would be off by 1e-5.
    for value, expected in zip(ours, right, strict=True):
        scale = expected.abs().max()
        assert_close([value / scale.float()], [(expected / scale).float()], 3e-6)


@pytest.mark.parametrize("name", ON_CPU)
def test_bfloat16(name):
    rounded = {
        k: v.detach().bfloat16().requires_grad_() for k, v in make_inputs(3, steps=20).items()
    }
    y, _, *gradients = outputs_and_gradients(rounded, activation="silu", implementation=name)
    expected = causal_conv1d(**{k: v.float() for k, v in rounded.items()}, activation="silu")
    torch.testing.assert_close(y, expected.bfloat16(), atol=1e-2, rtol=1e-2)
    assert {g.dtype for g in gradients} == {torch.bfloat16}


@pytest.mark.parametrize("name", ON_CPU)
def test_inputs_need_not_be_contiguous_and_stay_unchanged(name):
    x = torch.randn(4, 9, 10)
    left = x.chunk(2, dim=-1)[0]
    before, weight = x.clone(), torch.randn(5, 4)
    y = causal_conv1d(left, weight, activation="silu", implementation=name)
    expected = causal_conv1d(left.clone(), weight, activation="silu", implementation="reference")
    torch.testing.assert_close(y, expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["torch", None])
def test_compile(name):
    inputs = make_inputs(3, steps=9)

    def run(**tensors):
        return causal_conv1d(**tensors, activation="silu", implementation=name)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    outputs = [function(**inputs) for function in (compiled, run)]
    gradients = [torch.autograd.grad(y.sum(), list(inputs.values())) for y in outputs]
    assert_close([outputs[0], *gradients[0]], [outputs[1], *gradients[1]])


def test_export():
    class Convolution(torch.nn.Module):
        def forward(self, x, weight):
            return causal_conv1d(x, weight, return_final_state=True)

    steps = torch.export.Dim("steps", min=4)
    arguments = (torch.randn(3, 9, 5), torch.randn(5, 4))
    program = torch.export.export(Convolution(), arguments, dynamic_shapes=({1: steps}, {}))
    arguments = (torch.randn(3, 17, 5), arguments[1])
    for actual, expected in zip(program.module()(*arguments), Convolution()(*arguments)):
        torch.testing.assert_close(actual, expected)


def test_opcheck():
    arguments = (*make_inputs(2, steps=5).values(), True)
    torch.library.opcheck(
        torch.ops.pyg_stmamba.conv_forward.default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(4, 4)}, r"weight must be \[C, K\] with C = 5, got \[4, 4\]"),
        ({"bias": torch.ones(4)}, r"bias must be \[5\]"),
        ({"initial_state": torch.ones(2, 4, 5)}, r"initial_state must be \[2, 3, 5\]"),
        ({"activation": "relu"}, r"unknown activation 'relu'; the choices are None, 'silu'"),
        ({"x": torch.ones(5)}, r"x must be floating point \[\.\.\., T, C\]"),
        ({"implementation": "fast"}, r"unknown implementation 'fast'"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{**make_inputs(2, steps=6), **change})


def causal_conv1d_fn(
    x,
    weight,
    bias=None,
    seq_idx=None,
    initial_states=None,
    return_final_states=False,
    final_states_out=None,
    activation=None,
):
    """Stands in for the function of the causal-conv1d package: same arguments, time last."""
    if initial_states is not None:
        # The package takes states only beside channels that are contiguous, in both.
        assert x.stride(1) == 1
        assert initial_states.stride(1) == 1
    assert activation in (None, "silu", "swish")
    width = weight.shape[1]
    past = torch.zeros_like(x[..., :1]).repeat(1, 1, width - 1)
    past = past if initial_states is None else initial_states
    y = F.conv1d(torch.cat([past, x], dim=2), weight.unsqueeze(1), bias, groups=len(weight))
    return y if activation is None else F.silu(y)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "causal_conv1d", SimpleNamespace(causal_conv1d_fn=causal_conv1d_fn)
    )
    backend._first_import_failure.cache_clear()
    yield
    backend._first_import_failure.cache_clear()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("rows", [(), (3,), (2, 3)])
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_package_stand_in(rows, state, activation):
    inputs = make_inputs(*rows, steps=9)
    if not state:
        del inputs["initial_state"]
    assert IMPLEMENTATIONS[0].name == "causal_conv1d"
    y = IMPLEMENTATIONS[0].run(**inputs, activation=activation)
    expected = causal_conv1d(**inputs, activation=activation, implementation="reference")
    gradients = [torch.autograd.grad(o.sin().sum(), list(inputs.values())) for o in (y, expected)]
    assert_close([y, *gradients[0]], [expected, *gradients[1]])


@pytest.mark.choice
@pytest.mark.usefixtures("package")
def test_package_is_chosen_on_a_gpu():
    entry = IMPLEMENTATIONS[0]
    with FakeTensorMode():
        x, weight = torch.empty(2, 6, 5, device="cuda"), torch.empty(5, 4, device="cuda")
        assert backend.choose("causal_conv1d", IMPLEMENTATIONS, None, x, weight) is entry
        assert "width" in entry.reasons_against(x, weight.new_empty(5, 5))[0]
        assert "float64" in entry.reasons_against(x.double(), weight)[0]
        assert "CUDA" in entry.reasons_against(x.cpu(), weight)[0]
