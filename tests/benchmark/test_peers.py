import ast
from pathlib import Path

import pytest
import torch

from pyg_stmamba.benchmark import peers
from pyg_stmamba.benchmark.peers import CONVS, GATS, MAMBAS, SCANS, Peer


def test_no_peer_is_imported_at_the_top():
    """What is imported by name inside of functions appears in no import statement."""
    optional = {"mambapy", "transformers", "mamba_ssm", "causal_conv1d", "torch_scatter", "triton"}
    for path in Path(peers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            assert not {name.partition(".")[0] for name in names} & optional, path


def test_reasons_against(cpu):
    missing = Peer("a", int, needs=("no_such_module", "run"))
    assert "no_such_module cannot be imported" in missing.reasons_against(cpu, 1)[0]
    assert Peer("a", int, needs=("math", "no_such")).reasons_against(cpu, 1) == [
        "math has no compiled no_such"
    ]
    on_gpu = Peer("a", int, needs=("no_such_module",), devices=("cuda",))
    assert on_gpu.reasons_against(cpu, 1) == ["it is measured on cuda only"]
    short = Peer("a", int, most_steps=3)
    assert short.reasons_against(cpu, 3) == []
    assert short.reasons_against(cpu, 4) == ["it is measured up to 3 steps"]
    assert short.reasons_against(torch.device("cuda"), 3) == []


@pytest.mark.parametrize("table", [SCANS, CONVS, MAMBAS, GATS])
def test_every_function_has_a_peer_that_needs_nothing(table, cpu):
    assert any(not peer.needs and not peer.reasons_against(cpu, 12) for peer in table)
    assert len({peer.name for peer in table}) == len(table)
