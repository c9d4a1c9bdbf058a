import copy
import io
import pickle

import torch
from torch import Tensor, nn

from pyg_stmamba.nn.auxiliary_loss import AuxiliaryLoss


class Squares(AuxiliaryLoss):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self._aux_loss = y.square().mean()
        return y


def test_is_zero_before_the_first_pass():
    loss = Squares().get_aux_loss()
    assert loss.shape == ()
    assert loss == 0
    assert AuxiliaryLoss().get_aux_loss() == 0


def test_is_that_of_the_last_pass_and_has_gradients():
    module = Squares()
    module(torch.randn(4, 3))
    y = module(torch.randn(4, 3))
    loss = module.get_aux_loss()
    assert torch.equal(loss, y.square().mean())
    loss.backward()
    assert (module.linear.weight.grad != 0).all()


def test_copies_hold_none():
    module = Squares()
    module(torch.randn(4, 3))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(file, weights_only=False),
    ]
    for other in copies:
        assert other.get_aux_loss() == 0
        assert torch.equal(other.linear.weight, module.linear.weight)
    assert module.get_aux_loss() != 0
    assert list(module.state_dict()) == ["linear.weight", "linear.bias"]
