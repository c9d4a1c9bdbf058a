import pytest
import torch

from pyg_stmamba.nn import TemporalAttention, TemporalMamba, TemporalOperator


class Sum(TemporalOperator):
    """The running sum: the smallest operator that follows the protocol."""

    def forward(self, x, mask=None):
        return self.prefill(x, None, mask)[0]

    def prefill(self, x, state=None, mask=None):
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0.0)
        total = x.cumsum(-2) if state is None else x.cumsum(-2) + state[0].unsqueeze(-2)
        return total, (total[..., -1, :],)


def test_step_follows_from_prefill():
    x = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    op, state = Sum(), None
    for t in range(3):
        y, state = op.step(x[:, t], state, mask[:, t])
        assert y.shape == (2, 2)
    assert y.tolist() == [[4.0, 6.0], [24.0, 27.0]]


def test_base_class_is_abstract():
    op = TemporalOperator()
    for call in (op, op.prefill):
        with pytest.raises(NotImplementedError):
            call(torch.zeros(1, 2, 3))


@pytest.mark.parametrize("op", [TemporalMamba(4), TemporalAttention(4)])
def test_bad_input(op):
    with pytest.raises(ValueError, match=r"C = 4 channels last.*\[2, 5, 3\]"):
        op(torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"\[4\]"):
        op(torch.zeros(4))
    with pytest.raises(ValueError, match=r"\[2, 5\].*got \[2, 4\]"):
        op(torch.zeros(2, 5, 4), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"boolean.*float32"):
        op(torch.zeros(2, 5, 4), torch.ones(2, 5))
