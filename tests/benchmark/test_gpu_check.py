import pytest
import torch

from pyg_stmamba.benchmark.op_parity import conv_op_case, implementations_of


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(script, capsys, tmp_path):
    assert script("gpu_check").main(["--out", str(tmp_path / "check.md")]) == 2
    assert "there is no CUDA GPU here" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


def test_the_dry_run(script, capsys, tmp_path):
    out = tmp_path / "check.md"
    assert script("gpu_check").main(["--device=cpu", "--out", str(out), "--commit=abc"]) == 0
    text = out.read_text()
    assert text.startswith("# GPU check, at tiny sizes without a GPU\n\n- hardware: ")
    assert "- commit: abc" in text
    assert "| selective_scan | reference | bfloat16 |" in text
    assert "| STMambaBlock, training step |" in text
    assert "| graph_attention, torch.float32 |" in text
    assert "| epoch | training loss | validation error |\n|---|---|---|\n| 1 | " in text
    assert text.endswith("## Failures\n\nnone\n")
    assert text in capsys.readouterr().out


def test_failures_are_told(script, tmp_path, monkeypatch):
    check = script("gpu_check")
    entries = implementations_of("causal_conv1d")

    def broken(*arguments):
        raise RuntimeError("planted")

    def wrong(*arguments):
        return 2 * entries[-1].run(*arguments)

    planted = {"broken": broken, "wrong": wrong}
    table = [entries[-1]._replace(name=name, run=run) for name, run in planted.items()]
    monkeypatch.setattr(check, "implementations_of", lambda op: table)
    monkeypatch.setattr(check, "odd_op_cases", lambda *sizes: [conv_op_case(2, 3, 2)])
    failures: list[str] = []
    check.parity_part(torch.device("cpu"), check.TINY, failures)
    assert len(failures) == 2 * len(check.DTYPES)
    assert "causal_conv1d by broken, torch.float32" in failures[0]
    assert failures[0].endswith("RuntimeError: planted")
    assert "causal_conv1d by wrong, torch.float32" in failures[3]
    assert " is off by " in failures[3]

    monkeypatch.setattr(check, "PARTS", {"Parity": check.parity_part, "Broken": broken})
    assert check.main(["--device=cpu", "--out", str(tmp_path / "check.md")]) == 1
    assert "- Broken: RuntimeError: planted" in (tmp_path / "check.md").read_text()


def test_a_part_stops_when_its_time_is_over(script):
    notes: list[str] = []
    check = script("gpu_check")
    assert list(check.in_time(range(3), -1, "parity", notes)) == []
    assert notes == ["- parity: stopped after 0 of 3, -1 s were over"]
    assert list(check.in_time(range(3), 60, "parity", notes)) == [0, 1, 2]
    assert len(notes) == 1
