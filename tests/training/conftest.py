from collections.abc import Callable

import numpy as np
import pytest
import torch

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.models import PerformerForecaster, STMamba, TransformerForecaster


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., TemporalGraph]:
    def make(num_nodes: int = 5, num_steps: int = 120, channels: int = 1, clock: bool = True):
        rng = np.random.default_rng(3)
        steps = np.arange(num_steps)
        values = 50 + 10 * np.sin(2 * np.pi * steps / 24)[:, None, None]
        values = values + rng.normal(size=(num_steps, num_nodes, channels))
        mask = rng.random(values.shape) > 0.1
        start = np.datetime64("2024-01-01T00:00", "s")
        return TemporalGraph.from_arrays(
            values * mask,
            mask=mask,
            timestamps=start + steps * np.timedelta64(3600, "s") if clock else None,
            edge_index=np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)]),
            edge_weight=np.ones(num_nodes - 1, dtype=np.float32),
            node_ids=[f"sensor {node}" for node in range(num_nodes)],
            channels=["speed", "flow"][:channels],
            units=["km/h", "veh/h"][:channels],
        )

    return make


@pytest.fixture
def graph(make_graph: Callable[..., TemporalGraph]) -> TemporalGraph:
    return make_graph()


@pytest.fixture
def protocol() -> Protocol:
    return Protocol(window=6, horizon=4, split=(0.6, 0.2, 0.2), report_steps=(1, 4))


@pytest.fixture
def make_model(protocol: Protocol) -> Callable[..., STMamba]:
    def make(graph: TemporalGraph, **options):
        torch.manual_seed(1)
        # Dropout is on, so that a wrong random state would show.
        sizes = {"channels": 4, "num_layers": 1, "num_heads": 2, "d_state": 2, "dropout": 0.2}
        return STMamba(**STMamba.data_arguments(graph, protocol), **{**sizes, **options})

    return make


@pytest.fixture
def make_performer(protocol: Protocol) -> Callable[..., PerformerForecaster]:
    def make(graph: TemporalGraph, **options):
        torch.manual_seed(1)
        # Features are drawn anew within an epoch.
        sizes = {"d_model": 8, "n_heads": 2, "n_encoder_layers": 1, "nb_features": 8}
        sizes |= {"redraw_interval": 3, "dropout": 0.2, **options}
        arguments = PerformerForecaster.data_arguments(graph, protocol)
        return PerformerForecaster(**arguments, **sizes)

    return make


@pytest.fixture
def make_transformer(protocol: Protocol) -> Callable[..., TransformerForecaster]:
    def make(graph: TemporalGraph, **options):
        torch.manual_seed(1)
        sizes = {"d_model": 8, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
        arguments = TransformerForecaster.data_arguments(graph, protocol)
        return TransformerForecaster(**arguments, **{**sizes, "dropout": 0.2, **options})

    return make
