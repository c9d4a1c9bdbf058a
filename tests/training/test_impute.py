import numpy as np
import pytest
import torch
from torch import nn

from pyg_stmamba.models.imputation_baselines import LinearInterpolation, MeanImputation
from pyg_stmamba.models.imputer import Imputer
from pyg_stmamba.training.impute import imputation_errors, impute


class Position(Imputer):
    """Estimates the number of the step within its window."""

    def estimate(self, x, x_mask, time_of_day, day_of_week):
        return torch.arange(x.size(-2), dtype=x.dtype).unsqueeze(-1).expand_as(x)


@pytest.mark.parametrize(("window", "stride"), [(10, 1), (10, 4), (7, 7), (120, 1)])
def test_the_windows_over_a_step_are_averaged(graph, window, stride):
    starts = list(range(0, graph.num_steps - window + 1, stride))
    if starts[-1] != graph.num_steps - window:
        starts.append(graph.num_steps - window)
    places = [[t - s for s in starts if s <= t < s + window] for t in range(graph.num_steps)]
    expected = torch.tensor([np.mean(place) for place in places])[:, None].expand_as(graph.x)
    filled = impute(Position(), graph, window, stride, batch_size=3)
    gaps = ~graph.x_mask
    torch.testing.assert_close(filled[gaps], expected[gaps].float())
    assert torch.equal(filled[~gaps], graph.x[~gaps])


def test_one_window_over_all_is_the_imputer_itself(graph):
    model = LinearInterpolation().fit(graph)
    filled = impute(model, graph, graph.num_steps)
    torch.testing.assert_close(filled, model(graph.x, graph.x_mask))


def test_dropout_is_off_and_the_mode_comes_back(graph):
    class Drops(Imputer):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def estimate(self, x, x_mask, time_of_day, day_of_week):
            return self.dropout(torch.ones_like(x))

    model = Drops().train()
    assert (impute(model, graph, 12)[~graph.x_mask] == 1).all()
    assert model.training


def test_a_stride_that_leaves_steps_out_is_named(graph):
    with pytest.raises(ValueError, match="stride=13 must be from 1 to window=12"):
        impute(MeanImputation().fit(graph), graph, 12, 13)


def test_errors_equal_numpy_over_the_hidden_entries_of_the_steps(graph):
    graph.target = 50 + torch.randn_like(graph.x)
    graph.target_mask = ~graph.x_mask & (torch.rand(graph.x.shape) < 0.8)
    imputed = torch.randn_like(graph.x) + 50
    steps = torch.rand(graph.num_steps) < 0.5
    for chosen in (None, steps):
        mask = graph.target_mask.numpy().copy()
        if chosen is not None:
            mask[:, ~chosen.numpy()] = False
        error = (imputed.numpy() - graph.target.numpy())[mask].astype(np.float64)
        found = imputation_errors(imputed, graph, chosen)
        assert found["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
        assert found["rmse"] == pytest.approx((error**2).mean() ** 0.5, rel=1e-6)
        total = np.abs(graph.target.numpy()[mask]).sum()
        assert found["mre"] == pytest.approx(np.abs(error).sum() / total, rel=1e-6)


def test_without_hidden_entries_there_is_no_error(graph):
    with pytest.raises(ValueError, match="a graph with target and target_mask"):
        imputation_errors(graph.x, graph)
    graph.target, graph.target_mask = graph.x, torch.zeros_like(graph.x_mask)
    with pytest.raises(ValueError, match="no value is hidden at these steps"):
        imputation_errors(graph.x, graph)


def test_baselines_on_aqi36_equal_the_published_table(shared_data, tmp_path):
    from pyg_stmamba.datasets import AQI36
    from pyg_stmamba.training.imputation_split import split_months

    (tmp_path / "raw").symlink_to(shared_data / "aqi36")
    graph = AQI36(tmp_path, masked=True)[0]
    split = split_months(graph)
    linear = LinearInterpolation().fit(graph)(graph.x, graph.x_mask)
    assert imputation_errors(linear, graph, split.test)["mae"] == pytest.approx(14.683, abs=5e-4)
    # Published means see what is hidden in the months that are not tested.
    shown = graph.target_mask & ~split.test[:, None]
    graph.x, graph.x_mask = torch.where(shown, graph.target, graph.x), graph.x_mask | shown
    mean = MeanImputation().fit(graph)(graph.x, graph.x_mask)
    assert imputation_errors(mean, graph, split.test)["mae"] == pytest.approx(53.48, abs=5e-3)
