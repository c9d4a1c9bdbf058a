import pytest
import torch

from pyg_stmamba.benchmark import Parity
from pyg_stmamba.benchmark.op_parity import (
    attention_op_case,
    check_implementation,
    conv_op_case,
    implementations_of,
    odd_op_cases,
    scan_op_case,
)

MAKE = {
    "selective_scan": lambda asked: scan_op_case(2, 5, 3, 2, asked),
    "causal_conv1d": lambda asked: conv_op_case(2, 5, 3, asked),
    "graph_attention": lambda asked: attention_op_case(9, 2, 2, 3, full=asked),
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("op", MAKE)
def test_every_implementation_agrees_or_says_why_not(op, asked, cpu):
    case = MAKE[op](asked)
    checked = []
    for entry in implementations_of(op):
        for dtype in DTYPES:
            found = check_implementation(case, entry, cpu, dtype)
            if isinstance(found, list):
                assert found
            else:
                assert found.holds, f"{entry.name}, {dtype}: {found}"
                checked.append((entry.name, dtype))
    assert {("reference", dtype) for dtype in DTYPES} <= set(checked)


@pytest.mark.parametrize("op", MAKE)
def test_a_wrong_implementation_is_found(op, cpu):
    reference = implementations_of(op)[-1]

    def off(*arguments):
        given = reference.run(*arguments)
        y, *others = given if isinstance(given, tuple) else (given,)
        return (1.01 * y, *others)

    found = check_implementation(MAKE[op](False), reference._replace(run=off), cpu, torch.float32)
    assert isinstance(found, Parity)
    assert not found.holds
    assert len(found.errors) > 2


def test_sizes():
    cases = list(odd_op_cases(largest=63, rows=18))
    assert len({(case.op, case.sizes) for case in cases}) == len(cases)
    sizes = " ".join(case.sizes for case in cases)
    assert "18 rows" in sizes
    assert "500 steps" not in sizes
    assert "500 steps" in " ".join(case.sizes for case in odd_op_cases(rows=18))
    assert sum("stateful" in case.sizes or "full" in case.sizes for case in cases) * 2 == len(cases)
