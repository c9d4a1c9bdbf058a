import importlib.util

import pytest

TINY = ["--shape", "2", "6", "4", "8", "3", "2", "--repeats=1"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="there is no transformers"
)


def test_the_table(script, capsys):
    script("mixture_of_experts").main([*TINY, "--shape", "1", "5", "4", "8", "2", "2"])
    out = capsys.readouterr().out
    assert "- transformers" in out
    for shape in ("2 x 6, d 4, f 8, E 3, k 2", "1 x 5, d 4, f 8, E 2, k 2"):
        assert all(f"| {shape} | {name} |" in out for name in ("ours", "Mixtral", "dense, k times"))


def test_operations(script):
    """Ours and Mixtral's are those of the dense network and of the router."""
    module = script("mixture_of_experts")
    shape = module.Shape(4, 250, 32, 40, 3, 2)
    ours, theirs, dense = (float(row.split("|")[4]) for row in module.measured(shape, repeats=1))
    router = 3 * 2 * 1000 * 32 * 3 / 1e9
    assert ours == theirs == pytest.approx(dense + router, abs=1e-3)


def test_no_times_without_parity(script, monkeypatch):
    module = script("mixture_of_experts")
    right = module.MixtureOfExperts._mix
    monkeypatch.setattr(
        module.MixtureOfExperts, "_mix", lambda self, *given: 1.01 * right(self, *given)
    )
    with pytest.raises(SystemExit, match=r"disagree: .* is off by .*; no times without parity"):
        module.main(TINY)
