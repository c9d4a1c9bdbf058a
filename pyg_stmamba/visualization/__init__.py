r"""Pictures and reports of finished runs; the only part that imports matplotlib
(``pip install pyg-stmamba[train]``)."""

from .accuracy_cost import plot_accuracy_cost, write_accuracy_cost
from .attention_maps import plot_attention_maps
from .forecasts import plot_forecasts
from .horizon_error import plot_horizon_error
from .learning_curves import plot_learning_curves
from .node_map import plot_node_map
from .report import write_report
from .time_of_day_error import plot_time_of_day_error

__all__ = [
    "plot_accuracy_cost",
    "plot_attention_maps",
    "plot_forecasts",
    "plot_horizon_error",
    "plot_learning_curves",
    "plot_node_map",
    "plot_time_of_day_error",
    "write_accuracy_cost",
    "write_report",
]
