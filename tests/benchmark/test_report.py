import functools

import pytest
import torch

from pyg_stmamba import cli
from pyg_stmamba.benchmark import SETS, Case, conv_case, measure_set, scan_case
from pyg_stmamba.benchmark.contender import of_function


@pytest.fixture
def tiny(rows, monkeypatch):
    builds = (functools.partial(scan_case, rows), functools.partial(conv_case, rows))
    monkeypatch.setitem(SETS, "short", builds)


def wrong_case(device: torch.device) -> Case:
    inputs = {"x": torch.ones(3, device=device)}
    ours, peer = (
        of_function(name, f, inputs) for name, f in (("ours", torch.exp), ("b", torch.sin))
    )
    return Case("f", "3", ours, [peer], {}, 1e-5)


def test_the_command(tiny, capsys, tmp_path):
    cli.main(["benchmark", "--repeats=1", "--out", str(tmp_path / "new" / "table.md")])
    out, err = capsys.readouterr()
    assert out.startswith("- hardware: ")
    assert "| selective scan | 3 rows x 7 steps x 4 channels x 2 states | torch loop |" in out
    assert "| causal conv1d |" in out
    assert "benchmark: 100%" in err
    assert (tmp_path / "new" / "table.md").read_text() == out


def test_the_command_fails_where_a_peer_does_not_agree(monkeypatch, capsys):
    monkeypatch.setitem(SETS, "short", (wrong_case,))
    with pytest.raises(SystemExit, match="ours and a peer do not agree"):
        cli.main(["benchmark", "--repeats=1"])
    assert "- NO PARITY, no times: f, 3, b: gradient of x is off" in capsys.readouterr().out
    assert not measure_set([wrong_case], repeats=1).agrees


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set=long"], "unknown set 'long'; choose from short, all"),
        (["--device=tpu"], "device='tpu' is unknown; choose from 'cpu', 'cuda'"),
        (["--repeats=0"], "repeats=0 must be at least 1"),
    ],
)
def test_wrong_options_end_in_one_line(tiny, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["benchmark", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ValueError, match="device='cuda' is not there"):
        measure_set([], "cuda")
