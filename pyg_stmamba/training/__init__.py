r"""Training, evaluation and prediction; with :mod:`pyg_stmamba.cli` the only part that knows
Lightning (``pip install pyg-stmamba[train]``)."""

try:
    import lightning  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pyg_stmamba.training needs Lightning: pip install 'pyg-stmamba[train]'"
    ) from error

from .checkpoint import Forecaster, check_fits, describe, load_ensemble, load_forecaster
from .compare import Comparison, compare
from .device import check_devices
from .evaluate import BASELINES, Evaluation, evaluate
from .fit import RunResult, fit
from .forecast_data import ForecastData
from .forecast_module import ForecastModule
from .hiding import Hiding
from .imputation import ImputerResult, fit_imputer
from .imputation_split import ImputationSplit, split_months, split_time
from .impute import imputation_errors, impute
from .metrics import HorizonMetrics, masked_mae, masked_mape, masked_rmse
from .predict import Forecasts, predict
from .run_folder import RunFolder
from .schedule import Schedule
from .score_table import score_table

__all__ = [
    "BASELINES",
    "Comparison",
    "Evaluation",
    "ForecastData",
    "ForecastModule",
    "Forecaster",
    "Forecasts",
    "Hiding",
    "HorizonMetrics",
    "ImputationSplit",
    "ImputerResult",
    "RunFolder",
    "RunResult",
    "Schedule",
    "check_devices",
    "check_fits",
    "compare",
    "describe",
    "evaluate",
    "fit",
    "fit_imputer",
    "imputation_errors",
    "impute",
    "load_ensemble",
    "load_forecaster",
    "masked_mae",
    "masked_mape",
    "masked_rmse",
    "predict",
    "score_table",
    "split_months",
    "split_time",
]
