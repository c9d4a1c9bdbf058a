import random

import pytest
import torch

from pyg_stmamba.training.schedule import Progress, Schedule


def rates(scheduler, optimizer, steps: int, *values) -> list[float]:
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*(value[step] for value in values))
    return found


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_cosine_is_that_of_torch():
    sgd = optimizer()
    expected = rates(torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 40), sgd, 41)
    schedule = Schedule("cosine", warmup=0.0)
    assert [schedule.factor(Progress(step / 40, [])) for step in range(41)] == pytest.approx(
        expected
    )


def test_warmup_is_linear_and_joins_the_cosine():
    schedule = Schedule("cosine", warmup=0.2)
    found = [schedule.factor(Progress(fraction, [])) for fraction in (0.05, 0.1, 0.2, 0.6, 1.0)]
    assert found == pytest.approx([0.25, 0.5, 1.0, 0.5, 0.0])


def test_multistep_is_that_of_torch():
    sgd = optimizer()
    expected = rates(torch.optim.lr_scheduler.MultiStepLR(sgd, [3, 5], gamma=0.3), sgd, 8)
    schedule = Schedule("multistep", warmup=0.0, milestones=(3, 5), decay=0.3)
    found = [schedule.factor(Progress(0.5, [1.0] * epoch)) for epoch in range(8)]
    assert found == pytest.approx(expected)


def test_plateau_is_that_of_torch():
    generator = random.Random(0)
    errors = [generator.random() for _ in range(60)]
    sgd = optimizer()
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        sgd, factor=0.5, patience=2, threshold=0.0, eps=0.0
    )
    expected = rates(peer, sgd, 60, errors)
    schedule = Schedule("plateau", warmup=0.0, decay=0.5, patience=3)
    found = [schedule.factor(Progress(0.5, errors[:epoch])) for epoch in range(60)]
    assert found == pytest.approx(expected)
    assert found[-1] < 1e-3


def test_constant_is_one():
    schedule = Schedule("constant", warmup=0.1)
    assert schedule.factor(Progress(0.1, [])) == schedule.factor(Progress(1.0, [])) == 1.0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule("cosin"), "'cosin' is unknown; choose from 'cosine', 'constant'"),
        (Schedule(warmup=1.0), r"warmup=1.0 must lie in \[0, 1\)"),
    ],
)
def test_senseless_options_are_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        schedule.check()
