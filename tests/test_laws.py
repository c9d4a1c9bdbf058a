"""The laws, on every operator, block and model."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SAGEConv, TransformerConv

from pyg_stmamba.models import STMamba
from pyg_stmamba.nn import (
    Snapshot,
    SpatialAttention,
    SpatialGAT,
    STMambaBlock,
    TemporalAttention,
    TemporalFactorized,
    TemporalFrequency,
    TemporalMamba,
    TemporalPerformer,
)
from pyg_stmamba.nn.spatial.interaction import SpatialInteraction
from tests import laws

C, D = 8, 3
Case = tuple[Callable[[], nn.Module], bool]

TEMPORAL = {
    "mamba": lambda: TemporalMamba(C, d_state=4),
    "mamba with biases": lambda: TemporalMamba(C, d_state=4, bias=True, conv_bias=False, d_conv=2),
    "attention learned": lambda: TemporalAttention(C, heads=2, max_length=16),
    "attention sinusoidal": lambda: TemporalAttention(C, heads=2, position="sinusoidal"),
    "attention without positions": lambda: TemporalAttention(C, heads=1, position=None),
    "performer": lambda: TemporalPerformer(C, heads=2),
    "performer learned, hyperbolic": lambda: TemporalPerformer(
        C, heads=1, position="learned", max_length=16, feature_map="hyperbolic", qk_norm=True
    ),
    "performer relu": lambda: TemporalPerformer(C, heads=2, kernel="relu", position=None),
    "factorized": lambda: TemporalFactorized(C, heads=2, max_length=16),
    "factorized without positions": lambda: TemporalFactorized(C, 1, mlp_ratio=2, position=None),
}
NOT_CAUSAL = {
    "mamba both ways": lambda: TemporalMamba(C, d_state=4, bidirectional=True),
    "performer both ways": lambda: TemporalPerformer(C, heads=2, causal=False),
    "attention both ways": lambda: TemporalAttention(C, heads=2, causal=False, max_length=16),
    "factorized both ways": lambda: TemporalFactorized(C, heads=2, causal=False, max_length=16),
    "frequency": lambda: TemporalFrequency(C, heads=2),
    "frequency, random modes": lambda: TemporalFrequency(C, 2, modes=3, mode_select="random"),
    "frequency, softmax": lambda: TemporalFrequency(C, heads=2, activation="softmax"),
    "frequency, matrices": lambda: TemporalFrequency(C, heads=2, variant="feb"),
}
# A builder, and whether it takes edge features.
SPATIAL: dict[str, Case] = {
    "gat": (lambda: SpatialGAT(C, 4, heads=2), False),
    "gat averaged": (lambda: SpatialGAT(C, C, heads=3, concat=False, bias=False), False),
    "gat with edges": (lambda: SpatialGAT(C, 4, heads=2, edge_dim=D), True),
    "gat with residual": (lambda: SpatialGAT(C, 4, heads=2, residual=True), False),
    "gat, largest edges": (lambda: SpatialGAT(C, 4, heads=2, edge_dim=D, fill_value="max"), True),
    "attention": (lambda: SpatialAttention(C, heads=2), False),
    "attention to neighbors": (lambda: SpatialAttention(C, 2, neighbors_only=True), False),
    "interaction": (lambda: SpatialInteraction(C), False),
    "interaction with edges": (lambda: SpatialInteraction(C, D), True),
    "interaction, deep": (lambda: SpatialInteraction(C, D, num_layers=2, norm=True), True),
    "snapshot gcn": (lambda: Snapshot(GCNConv(C, C)), False),
    "snapshot sage": (lambda: Snapshot(SAGEConv(C, C)), False),
    "snapshot transformer": (lambda: Snapshot(TransformerConv(C, 4, 2, edge_dim=D)), True),
}
BLOCKS: dict[str, Case] = {
    "gat, mamba": (lambda: STMambaBlock(C, num_heads=2), False),
    "gat, mamba, pre": (lambda: STMambaBlock(C, num_heads=2, norm="pre"), False),
    "gat with edges, mamba": (lambda: STMambaBlock(C, num_heads=2, edge_dim=D), True),
    "gat averaged, attention": (
        lambda: STMambaBlock(C, num_heads=3, concat=False, temporal=TemporalAttention(C, 2)),
        False,
    ),
    "gatv2, mamba": (lambda: STMambaBlock(C, num_heads=2, spatial="gatv2", edge_dim=D), True),
    "interaction, mamba, pre": (
        lambda: STMambaBlock(C, spatial="interaction", edge_dim=D, norm="pre"),
        True,
    ),
    "attention, mamba, pre": (
        lambda: STMambaBlock(C, num_heads=2, spatial="attention", norm="pre"),
        False,
    ),
    "dot, attention": (
        lambda: STMambaBlock(C, num_heads=2, spatial="dot", temporal="attention"),
        False,
    ),
    "gat, performer": (lambda: STMambaBlock(C, num_heads=2, temporal="performer"), False),
    "gat, factorized, pre": (
        lambda: STMambaBlock(C, num_heads=2, temporal="factorized", norm="pre"),
        False,
    ),
    "gat, mamba, gated": (lambda: STMambaBlock(C, num_heads=2, feed_forward="swiglu"), False),
    "gcn, mamba": (lambda: STMambaBlock(C, spatial=GCNConv(C, C)), False),
    "no space": (lambda: STMambaBlock(C, spatial=None), False),
    "no time": (lambda: STMambaBlock(C, num_heads=2, temporal=None), False),
}
MODELS: dict[str, Case] = {
    "gat, mamba": (lambda: model(), False),
    "gat with edges, mamba, post": (lambda: model(edge_dim=D, norm="post"), True),
    "gat then attention, mamba": (lambda: model(spatial=["gat", "attention"]), False),
    "dot, attention": (lambda: model(spatial="dot", temporal="attention"), False),
    "gat, performer": (lambda: model(temporal="performer"), False),
    "gat, factorized": (lambda: model(temporal="factorized"), False),
    "no space": (lambda: model(spatial=None), False),
}
LOCAL = [name for name in SPATIAL if name != "attention"]
LOCAL_BLOCKS = [name for name in BLOCKS if not name.startswith(("attention", "no space"))]
TEMPORAL_BLOCKS = [name for name in BLOCKS if name != "no time"]
LOCAL_MODELS = [name for name in MODELS if name not in ("gat then attention, mamba", "no space")]
EITHER = {**TEMPORAL, **NOT_CAUSAL}

# Node 6 is isolated, 2 -> 2 is a loop, 0 -> 1 is there twice and one way only.
EDGES = torch.tensor([[0, 0, 1, 2, 2, 3, 4, 5, 4], [1, 1, 2, 2, 3, 4, 3, 4, 5]])
NODES, STEPS = 7, 9


def model(**options: Any) -> STMamba:
    arguments = {"channels": 8, "num_heads": 2, "d_state": 4, "horizon": 3, "readout": "last"}
    return STMamba(**{"in_channels": C, **arguments, **options})


def series(*leading: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*leading, STEPS, C, dtype=dtype)


def edge_features(wanted: bool, steps: bool = False) -> Tensor | None:
    if not wanted:
        return None
    return torch.randn(EDGES.size(1), *((STEPS,) if steps else ()), D)


def on_graph(name: str) -> laws.OnGraph:
    build, edges = BLOCKS[name]
    return laws.OnGraph(build().eval(), EDGES, edge_features(edges))


@pytest.mark.parametrize("name", TEMPORAL)
def test_temporal_stream(name: str) -> None:
    op, x = TEMPORAL[name]().eval(), series(3, 2)
    laws.whole_is_chunks_is_steps(op, x, 1e-5)
    laws.whole_is_chunks_is_steps(op, x, 1e-5, laws.random_mask(x))
    laws.states_are_values(op, x)
    x = x.double()
    laws.whole_is_chunks_is_steps(op.double(), x, 1e-10, laws.random_mask(x, 1))


@pytest.mark.parametrize("name", TEMPORAL)
@pytest.mark.parametrize("training", [False, True])
def test_temporal_causality(name: str, training: bool) -> None:
    op, x = TEMPORAL[name]().train(training), series(3, 2)
    assert op.causal
    laws.the_future_moves_nothing(op, x)
    laws.the_future_moves_nothing(op, x, laws.random_mask(x))
    laws.the_past_moves_the_present(op, x)


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_temporal_without_causality(name: str) -> None:
    op, x = NOT_CAUSAL[name](), series(3)
    assert not op.causal
    laws.a_stream_needs_causality(op, x)
    laws.the_past_moves_the_present(op, x)
    laws.the_past_moves_the_present(lambda x: op(x.flip(-2)).flip(-2), x)


@pytest.mark.parametrize("name", EITHER)
def test_temporal_rows(name: str) -> None:
    laws.rows_are_independent(EITHER[name](), series(5))
    laws.rows_are_independent(EITHER[name](), series(2, 3), dim=1)


@pytest.mark.parametrize("name", EITHER)
def test_temporal_masks(name: str) -> None:
    op, x = EITHER[name](), series(3, 2)
    laws.masked_steps_have_no_influence(op, x, laws.random_mask(x))
    laws.fully_masked_rows_give_zero(op, x)


@pytest.mark.parametrize("name", EITHER)
def test_temporal_modules(name: str) -> None:
    op, x = EITHER[name](), series(3, 2)
    laws.copies_are_equal(op, lambda op: op(x))
    laws.inputs_stay_untouched(op, x, laws.random_mask(x))
    laws.layout_does_not_matter(op, x)


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_instants(name: str) -> None:
    build, edges = SPATIAL[name]
    op, x = build(), series(NODES)
    laws.instants_do_not_mix(op, x, EDGES, edge_features(edges))
    laws.instants_do_not_mix(op, x, EDGES, edge_features(edges, steps=True))
    laws.instants_do_not_mix(op, series(NODES, 2), EDGES, edge_features(edges))


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_order(name: str) -> None:
    build, edges = SPATIAL[name]
    laws.order_does_not_matter(build(), series(NODES), EDGES, edge_features(edges))


@pytest.mark.parametrize("name", LOCAL)
def test_spatial_locality(name: str) -> None:
    build, edges = SPATIAL[name]
    op, x, attr = build(), series(NODES), edge_features(edges)
    assert op.local
    laws.only_near_nodes_matter(op, x, EDGES, attr)
    laws.only_near_nodes_matter(lambda x, e, a: op(op(x, e, a), e, a), x, EDGES, attr, hops=2)


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_union(name: str) -> None:
    build, edges = SPATIAL[name]
    small = torch.tensor([[0, 1], [1, 2]])
    laws.graphs_do_not_mix(
        build(),
        [
            (series(NODES), EDGES, edge_features(edges)),
            (series(3), small, torch.randn(2, D) if edges else None),
            (series(1), small[:, :0], torch.randn(0, D) if edges else None),
        ],
    )


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_modules(name: str) -> None:
    build, edges = SPATIAL[name]
    op, x, attr = build(), series(NODES), edge_features(edges)
    laws.lonely_nodes_are_harmless(op, x, attr)
    laws.copies_are_equal(op, lambda op: op(x, EDGES, attr))
    laws.inputs_stay_untouched(op, x, EDGES, attr)
    laws.layout_does_not_matter(op, x, EDGES, attr)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_stream(name: str) -> None:
    op, x = on_graph(name), series(NODES, 2)
    laws.whole_is_chunks_is_steps(op, x, 1e-5)
    laws.whole_is_chunks_is_steps(op, x[:, 0], 1e-5, laws.random_mask(x[:, 0]))
    laws.states_are_values(op, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_causality(name: str) -> None:
    op, x = on_graph(name), series(NODES)
    laws.the_future_moves_nothing(op, x)
    laws.the_future_moves_nothing(op.train(), x)
    if name in TEMPORAL_BLOCKS:
        laws.the_past_moves_the_present(op.eval(), x)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_windows(name: str) -> None:
    laws.rows_are_independent(on_graph(name), series(NODES, 3), dim=1)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_masks(name: str) -> None:
    op, x = on_graph(name), series(NODES)
    laws.masked_steps_have_no_influence(op, x, laws.random_mask(x))
    laws.fully_masked_rows_give_zero(op, x)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_on_graphs(name: str) -> None:
    build, edges = BLOCKS[name]
    op, x, attr = build().eval(), series(NODES), edge_features(edges)
    laws.order_does_not_matter(op, x, EDGES, attr, tolerance=3e-6)
    small = torch.tensor([[0, 1], [1, 2]])
    laws.graphs_do_not_mix(
        op,
        [(x, EDGES, attr), (series(3), small, torch.randn(2, D) if edges else None)],
        tolerance=3e-6,
    )
    laws.lonely_nodes_are_harmless(op, x, attr)


@pytest.mark.parametrize("name", LOCAL_BLOCKS)
def test_block_locality(name: str) -> None:
    build, edges = BLOCKS[name]
    op, x, attr = build().eval(), series(NODES), edge_features(edges)
    laws.only_near_nodes_matter(op, x, EDGES, attr)
    other = build().eval()
    laws.only_near_nodes_matter(lambda x, e, a: other(op(x, e, a), e, a), x, EDGES, attr, hops=2)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_modules(name: str) -> None:
    build, edges = BLOCKS[name]
    op, x, attr = build().eval(), series(NODES), edge_features(edges)
    laws.copies_are_equal(op, lambda op: op(x, EDGES, attr))
    laws.inputs_stay_untouched(op, x, EDGES, attr, laws.random_mask(x))
    laws.layout_does_not_matter(op, x, EDGES, attr, tolerance=3e-6)


@pytest.mark.parametrize("name", MODELS)
def test_model_stream(name: str) -> None:
    build, edges = MODELS[name]
    op = laws.Forecasts(build().eval(), EDGES, edge_features(edges))
    x = series(NODES, 2)
    laws.whole_is_chunks_is_steps(op, x, 1e-5)
    laws.whole_is_chunks_is_steps(op, x[:, 0], 1e-5, laws.random_mask(x[:, 0]))
    laws.states_are_values(op, x)
    laws.the_past_moves_the_present(op, x)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("readout", ["last", "window"])
def test_model_windows(name: str, readout: str) -> None:
    build, edges = MODELS[name]
    op = model(**build().config() | {"readout": readout, "window": STEPS}).eval()
    on_graph = functools.partial(op, edge_index=EDGES, edge_attr=edge_features(edges))
    laws.rows_are_independent(lambda x: on_graph(x, nodes_first=True), series(NODES, 3), dim=1)


@pytest.mark.parametrize("name", MODELS)
def test_model_on_graphs(name: str) -> None:
    build, edges = MODELS[name]
    op, x, attr = build().eval(), series(NODES), edge_features(edges)
    laws.order_does_not_matter(op, x, EDGES, attr, tolerance=3e-6)
    small = torch.tensor([[0, 1], [1, 2]])
    laws.graphs_do_not_mix(
        op,
        [(x, EDGES, attr), (series(3), small, torch.randn(2, D) if edges else None)],
        tolerance=3e-6,
    )
    laws.lonely_nodes_are_harmless(op, x, attr)


@pytest.mark.parametrize("name", LOCAL_MODELS)
def test_model_locality(name: str) -> None:
    build, edges = MODELS[name]
    # Two blocks, so that a node hears of what is up to two edges away.
    laws.only_near_nodes_matter(build().eval(), series(NODES), EDGES, edge_features(edges), hops=2)


@pytest.mark.parametrize("name", MODELS)
def test_model_modules(name: str) -> None:
    build, edges = MODELS[name]
    op, x, attr = build().eval(), series(NODES), edge_features(edges)
    laws.copies_are_equal(op, lambda op: op(x, EDGES, attr))
    laws.inputs_stay_untouched(op, x, EDGES, attr, x_mask=torch.rand(x.shape) > 0.3)
    laws.layout_does_not_matter(op, x, EDGES, attr, tolerance=3e-6)
