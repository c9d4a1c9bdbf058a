import importlib.util
import math

import pytest
import torch

TINY = ["--lengths", "16", "32", "--heads=1", "--dim=4", "--features=6", "--repeats=1"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("performer_pytorch") is None, reason="there is no performer-pytorch"
)


def test_slopes(script):
    slope = script("performer").slope
    assert math.isclose(slope([2, 4, 8], [3.0, 12.0, 48.0]), 2.0)
    assert math.isclose(slope([2, 4, 8], [3.0, 6.0, None]), 1.0)
    assert math.isnan(slope([2, 4], [3.0, None]))


def test_the_tables(script, capsys):
    script("performer").main([*TINY, "--draws=1", "--counts", "8", "16"])
    out = capsys.readouterr().out
    assert "- B 1, H 1, d 4, 6 features" in out
    assert out.count("| L, ms | ours | performer-pytorch | torch SDPA | softmax |") == 2
    assert out.count("- L = 32: ours is") == 2
    assert all(f"| N(0, {law}), {count} |" in out for law in ("1/2", "1") for count in (8, 16))


def test_costs(script):
    module = script("performer")
    op = module.PerformerAttention(4, 6)
    small, large = (module.measured(length, 1, op, 1, 1.0) for length in (64, 128))
    assert large["ours"].flops == 2 * small["ours"].flops > 0
    for name in ("torch SDPA", "softmax"):
        assert large[name].flops == 4 * small[name].flops > 0
    assert all(costs.seconds > 0 and costs.bytes > 0 for costs in large.values())


def test_what_does_not_fit_is_not_run(script):
    module = script("performer")
    op = module.PerformerAttention(4, 6)
    costs = module.measured(512, 1, op, 1, gigabytes=1e-3)
    assert costs["softmax"].seconds is None
    assert costs["softmax"].bytes > 3 * 4 * 512**2
    assert costs["ours"].seconds > 0
    table = module.cost_tables({512: costs})
    assert "times as fast as performer-pytorch" in table
    assert "times as fast as softmax" not in table


@pytest.mark.parametrize("who", ["ours", "softmax"])
def test_no_times_without_parity(script, monkeypatch, who):
    module = script("performer")
    if who == "ours":
        wrong = module.PerformerAttention.features
        monkeypatch.setattr(
            module.PerformerAttention, "features", lambda self, x: wrong(self, 1.01 * x)
        )
    else:
        monkeypatch.setattr(
            module.F, "scaled_dot_product_attention", lambda q, k, v, **_: v + 0 * (q + k)
        )
    with pytest.raises(SystemExit, match=r"disagree: .* is off by .*; no times without parity"):
        module.main(TINY)


def test_errors_fall_with_the_number_of_features(script):
    module = script("performer")
    for how in ("ours", "ours, hyperbolic", "ours, independent", "performer-pytorch"):
        few, many = (module.error_of(how, count, 0.5, 32, 8, 5) for count in (8, 512))
        assert 0 < many < 0.5 * few
        torch.manual_seed(0)
        query = torch.randn(1, 5, 2, 8)
        assert module.attention(how, 8, 8)(query, query, query).shape == query.shape
