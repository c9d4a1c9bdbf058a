import torch

from pyg_stmamba.benchmark import peak_memory
from pyg_stmamba.ops import selective_scan
from pyg_stmamba.ops.selective_scan import IMPLEMENTATIONS


def test_what_lives_at_once_counts(cpu):
    given = torch.randn(1000)

    def one_after_the_other() -> None:
        for _ in range(5):
            given.exp()

    def all_at_once() -> list[torch.Tensor]:
        return [given.exp() for _ in range(5)]

    assert peak_memory(one_after_the_other, cpu) == 4000
    assert peak_memory(all_at_once, cpu) == 20_000
    assert peak_memory(lambda: given.view(10, 100).t(), cpu) == 0


def test_the_inside_of_a_kernel_counts(cpu):
    """The gradients are made in a custom operation."""
    x = torch.randn(2, 40, 8, requires_grad=True)
    A = -torch.ones(8, 4)
    B = torch.randn(2, 40, 4)
    for entry in IMPLEMENTATIONS:
        if entry.reasons_against(x, x, A, B, B):
            continue

        def step(name: str = entry.name) -> None:
            y = selective_scan(x, x, A, B, B, implementation=name)
            torch.autograd.grad(y.sum(), x)

        step()
        assert peak_memory(step, cpu) >= 2 * x.nbytes
