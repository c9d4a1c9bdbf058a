from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch_geometric.data import InMemoryDataset

from pyg_stmamba.datasets.aqi36 import AQI36
from pyg_stmamba.datasets.cylinder_flow import CylinderFlow
from pyg_stmamba.datasets.deep_mind_flow import DeepMindFlow
from pyg_stmamba.datasets.freeway_traffic import FreewayTraffic
from pyg_stmamba.datasets.largest import LargeST
from pyg_stmamba.datasets.metr_la import METRLA
from pyg_stmamba.datasets.pems import PEMS
from pyg_stmamba.datasets.pems_bay import PEMSBAY
from pyg_stmamba.datasets.pemsd7m import PEMSD7M

DATASETS: dict[str, Callable[..., InMemoryDataset]] = {
    "metr-la": METRLA,
    "pems-bay": PEMSBAY,
    "pems03": partial(PEMS, name="PEMS03"),
    "pems04": partial(PEMS, name="PEMS04"),
    "pems07": partial(PEMS, name="PEMS07"),
    "pems08": partial(PEMS, name="PEMS08"),
    "pemsd7m": PEMSD7M,
    "largest-sd": partial(LargeST, name="SD"),
    "largest-gba": partial(LargeST, name="GBA"),
    "largest-gla": partial(LargeST, name="GLA"),
    "largest-ca": partial(LargeST, name="CA"),
    "aqi36": AQI36,
    "aqi36-masked": partial(AQI36, masked=True),
    "freeway": FreewayTraffic,
}


# Simulations on meshes, opened by root and split.
MESH_DATASETS: dict[str, Callable[..., CylinderFlow | DeepMindFlow]] = {
    "cylinder-flow": CylinderFlow,
    "deep-mind-cylinder-flow": partial(DeepMindFlow, name="cylinder_flow"),
    "deep-mind-airfoil": partial(DeepMindFlow, name="airfoil"),
}


def open_dataset(name: str, root: str | Path, **kwargs: Any) -> InMemoryDataset:
    r"""Opens a data set by its name.

    Args:
        name: One of the keys of :obj:`DATASETS`.
        root: Folder of the data set, with the upstream files in :obj:`raw/`.
        **kwargs: Further arguments of the data set's class.

    Raises:
        ValueError: If there is no data set of this name; the message lists them.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    return DATASETS[name](root, **kwargs)


__all__ = [
    "AQI36",
    "DATASETS",
    "MESH_DATASETS",
    "METRLA",
    "PEMS",
    "PEMSBAY",
    "PEMSD7M",
    "CylinderFlow",
    "DeepMindFlow",
    "FreewayTraffic",
    "LargeST",
    "open_dataset",
]
