from __future__ import annotations

from typing import Any

from pyg_stmamba.nn.blocks.space_time_stack import ATTENTION_TYPES

FACTORIZED = "factorized_encoder"
POOLS = ("cls", "mean", None)


def check_options(
    patch_size: Any,
    image_size: Any,
    num_nodes: int | None,
    attention_type: str,
    temporal_layers: int | None,
    pool: str | None,
    num_classes: int | None,
    out_channels: int | None,
    horizon: int | None,
    drop_path: float,
    causal: bool,
    **_: Any,
) -> None:
    r"""Says which arguments of a :class:`SpaceTimeTransformer` do not go together.

    Raises:
        ValueError: If there are such, or a choice is unknown.
    """
    types = (*ATTENTION_TYPES, FACTORIZED)
    if attention_type not in types:
        raise ValueError(f"unknown attention_type {attention_type!r}; choose one of {types}")
    if pool not in POOLS:
        raise ValueError(f"unknown pool {pool!r}; choose one of {POOLS}")
    if (patch_size is None) != (image_size is None):
        raise ValueError(
            "a video needs both patch_size and image_size, a graph neither, got "
            f"patch_size={patch_size} and image_size={image_size}"
        )
    if patch_size is not None and num_nodes is not None:
        raise ValueError(
            f"num_nodes={num_nodes} is for graphs, patch_size={patch_size} for videos: choose one"
        )
    if num_classes is not None and out_channels is not None:
        raise ValueError(
            f"num_classes={num_classes} reads the pooled features and "
            f"out_channels={out_channels} the tokens: choose one"
        )
    if num_classes is not None and pool is None:
        raise ValueError(f"num_classes={num_classes} needs pool='cls' or 'mean', got None")
    if horizon is not None and out_channels is None:
        raise ValueError(f"horizon={horizon} needs out_channels, got None")
    if causal and pool == "cls":
        raise ValueError(
            "causal=True needs pool='mean' or None, got 'cls': a class token gathers all steps "
            "and would tell the earlier ones about the later ones"
        )
    if attention_type != "divided" and drop_path > 0:
        raise ValueError(
            f"drop_path={drop_path} needs attention_type='divided', got {attention_type!r}"
        )
    if attention_type != FACTORIZED:
        if temporal_layers is not None:
            raise ValueError(
                f"temporal_layers={temporal_layers} needs attention_type={FACTORIZED!r}, got "
                f"{attention_type!r}"
            )
    elif causal or pool is None or out_channels is not None:
        raise ValueError(
            f"attention_type={FACTORIZED!r} gives one vector a video or graph: it needs "
            f"pool='cls' or 'mean', causal=False and no out_channels, got pool={pool!r}, "
            f"causal={causal} and out_channels={out_channels}"
        )
