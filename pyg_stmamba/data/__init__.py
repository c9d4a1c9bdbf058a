from pyg_stmamba.data.calendar import as_seconds, day_of_week, time_of_day
from pyg_stmamba.data.csv_file import load_csv
from pyg_stmamba.data.graph import from_adjacency, from_networkx, gaussian_kernel_graph
from pyg_stmamba.data.npz_file import load_npz, save_npz
from pyg_stmamba.data.positions import great_circle_distance, knn_graph, radius_graph
from pyg_stmamba.data.protocol import Protocol
from pyg_stmamba.data.scaler import Scaler
from pyg_stmamba.data.split import split_windows
from pyg_stmamba.data.temporal_graph import TemporalGraph
from pyg_stmamba.data.windows import Windows, collate_shared

__all__ = [
    "Protocol",
    "Scaler",
    "TemporalGraph",
    "Windows",
    "as_seconds",
    "collate_shared",
    "day_of_week",
    "from_adjacency",
    "from_networkx",
    "gaussian_kernel_graph",
    "great_circle_distance",
    "knn_graph",
    "load_csv",
    "load_npz",
    "radius_graph",
    "save_npz",
    "split_windows",
    "time_of_day",
]
