import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter1d

from pyg_stmamba.models.series_frame import SeriesFrame, fill_forward
from pyg_stmamba.nn import GlobalNorm
from tests.laws import close, same

B, L, N, TARGETS = 2, 12, 4, [2, 0]


def randomized(**options) -> SeriesFrame:
    frame = SeriesFrame(N, TARGETS, **options)
    with torch.no_grad():
        for parameter in frame.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return frame


OPTIONS = [
    {},
    {"use_revin": True},
    {"global_norm": None},
    {"use_revin": True, "linear_window": 3},
    {"linear_window": 3, "kernel_size": 4},
    {"linear_window": 3, "kernel_size": 5, "use_revin": True, "global_norm": None},
]


def options(index: int) -> dict:
    chosen = dict(OPTIONS[index])
    if "global_norm" in chosen:
        chosen["global_norm"] = GlobalNorm(torch.randn(N), torch.rand(N) + 0.5)
    return chosen


@pytest.mark.parametrize("index", range(len(OPTIONS)))
def test_targets_come_back(index):
    frame = randomized(**options(index))
    y, observed = 5 + 3 * torch.randn(B, L, N), torch.rand(B, L, N) < 0.8
    framed = frame.context(y, observed)
    future, known = 5 + 3 * torch.randn(B, 6, 2), torch.rand(B, 6, 2) < 0.8
    normalized = frame.normalize_targets(future.masked_fill(~known, torch.nan), known, framed)
    assert (normalized[~known] == 0).all()
    close(frame.restore(normalized, framed)[known], future[known], 1e-5)


@pytest.mark.parametrize("index", range(len(OPTIONS)))
def test_nothing_stands_in_the_place_of_missing_values(index):
    frame = randomized(**options(index))
    y, observed = 5 + 3 * torch.randn(B, L, N), torch.rand(B, L, N) < 0.8
    framed = frame.context(y.masked_fill(~observed, torch.nan), observed)
    if frame.decomposition is None:
        assert (framed.seasonal[~observed] == 0).all()
    future = torch.full((B, 6, 2), torch.nan)
    normalized = frame.normalize_targets(future, ~future.isnan(), framed)
    if not list(frame.parameters()):
        return
    y = frame.restore(normalized + frame.baseline(framed, 6), framed)
    (framed.seasonal.sum() + y.sum()).backward()
    for name, parameter in frame.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_statistics_are_those_of_observed_values():
    frame = SeriesFrame(N, TARGETS, use_revin=True)
    y, observed = 5 + 3 * torch.randn(B, L, N), torch.rand(B, L, N) < 0.6
    framed = frame.context(y, observed)
    known = y.masked_fill(~observed, torch.nan).numpy()
    scale = np.sqrt(np.nanvar(known, 1, keepdims=True) + 1e-5)
    expected = (known - np.nanmean(known, 1, keepdims=True)) / scale
    close(framed.seasonal[observed], torch.from_numpy(expected)[observed], 1e-5)


def test_reset_parameters_keeps_what_was_fitted():
    norm = GlobalNorm(torch.randn(N), torch.rand(N) + 0.5)
    frame = randomized(use_revin=True, linear_window=3, global_norm=norm)
    before = {name: value.clone() for name, value in frame.state_dict().items()}
    frame.reset_parameters()
    for name, value in frame.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("global_norm"), name
    assert (frame.revin.weight == 1).all()


def test_an_empty_frame_changes_nothing():
    frame = SeriesFrame(N, TARGETS)
    y, observed = torch.randn(B, L, N), torch.rand(B, L, N) < 0.8
    framed = frame.context(y.masked_fill(~observed, torch.nan), observed)
    same(framed.seasonal, y.masked_fill(~observed, 0.0))
    same(framed.observed, observed[..., TARGETS])
    assert frame.baseline(framed, 3) == 0.0
    same(frame.restore(y[..., :2], framed), y[..., :2])


def test_seasonal_and_trend_make_the_series():
    frame = SeriesFrame(N, range(N), linear_window=3, kernel_size=5)
    y, observed = torch.randn(B, L, N), torch.rand(B, L, N) < 0.8
    framed = frame.context(y, observed)
    filled = fill_forward(y, observed)
    close(framed.seasonal + framed.trend, filled, 1e-6)
    trend = uniform_filter1d(filled.numpy(), 5, axis=1, mode="nearest")
    np.testing.assert_allclose(framed.trend, trend, atol=1e-6)
    same(frame.baseline(framed, 4), frame.linear(framed.trend, 4))


def test_a_trend_needs_a_linear_model():
    with pytest.raises(ValueError, match="linear_window=0"):
        SeriesFrame(N, TARGETS, kernel_size=5)


@pytest.mark.parametrize("start_len", [0, 3, L])
def test_shifted_without_decomposition_is_the_step_before(start_len):
    frame = SeriesFrame(N, TARGETS)
    y, observed = torch.randn(B, L, N), torch.rand(B, L, N) < 0.7
    framed = frame.context(y, observed)
    values, known = torch.randn(B, 7, 2), torch.rand(B, 7, 2) < 0.7
    seen, given = frame.shifted(values, known, framed, start_len)
    same(seen[:, 1:], values[:, :-1])
    same(given[:, 1:], known[:, :-1])
    if start_len == L:
        assert (seen[:, 0] == 0).all()
        assert not given[:, 0].any()
    else:
        last = L - start_len - 1
        same(given[:, 0], observed[:, last, TARGETS])
        expected = fill_forward(y, observed)[:, last, TARGETS]
        same(seen[:, 0], expected)


def test_shifted_with_decomposition_against_numpy():
    """Series by series: the causal average of context and values, with gaps filled from before."""
    frame = SeriesFrame(N, TARGETS, linear_window=2, kernel_size=3)
    y, observed = torch.randn(B, L, N).double(), torch.rand(B, L, N) < 0.7
    framed = frame.context(y, observed)
    values, known = torch.randn(B, 7, 2).double(), torch.rand(B, 7, 2) < 0.7
    values = values.masked_fill(~known, 0.0)
    seen, _ = frame.shifted(values, known, framed, start_len=2)
    for b in range(B):
        for m, n in enumerate(TARGETS):
            series, last = [], 0.0
            for t in range(L - 2):
                last = y[b, t, n].item() if observed[b, t, n] else last
                series.append(last)
            for t in range(7):
                last = values[b, t, m].item() if known[b, t, m] else last
                series.append(last)
            padded = np.array([series[0]] * 2 + series)
            trend = (padded[2:] + padded[1:-1] + padded[:-2]) / 3
            seasonal = np.array(series) - trend
            np.testing.assert_allclose(seen[b, :, m].numpy(), seasonal[L - 3 : L + 4], atol=1e-12)


@pytest.mark.parametrize("index", range(len(OPTIONS)))
def test_shifted_knows_nothing_of_later_values(index):
    frame = randomized(**options(index))
    framed = frame.context(torch.randn(B, L, N), torch.ones(B, L, N, dtype=torch.bool))
    values, known = torch.randn(B, 7, 2), torch.ones(B, 7, 2, dtype=torch.bool)
    seen, _ = frame.shifted(values, known, framed, 2)
    for t in range(7):
        other = values.clone()
        other[:, t:] = 100.0
        same(frame.shifted(other, known, framed, 2)[0][:, : t + 1], seen[:, : t + 1])


def test_start_is_what_the_context_shows_there():
    frame = SeriesFrame(N, TARGETS, linear_window=2, kernel_size=4)
    y = torch.randn(B, L, N)
    framed = frame.context(y, torch.ones(B, L, N, dtype=torch.bool))
    values = torch.cat([y[:, -3:, TARGETS], torch.full((B, 5, 2), torch.nan)], 1)
    seen, given = frame.start(values, torch.ones(B, 8, 2, dtype=torch.bool), framed, 3)
    close(seen[:, :3], framed.seasonal[:, -3:, TARGETS], 1e-6)
    assert (seen[:, 3:] == 0).all()
    assert given[:, :3].all()
    assert not given[:, 3:].any()


def test_fill_forward():
    y = torch.tensor([[1.0, torch.nan, 3.0, torch.nan, torch.nan, 6.0]]).mT[None]
    filled = fill_forward(y, ~y.isnan())
    assert filled.flatten().tolist() == [1, 1, 3, 3, 3, 6]
    assert fill_forward(y, torch.zeros_like(y).bool()).flatten().tolist() == [0] * 6
