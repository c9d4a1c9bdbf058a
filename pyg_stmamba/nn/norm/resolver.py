from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pyg_stmamba.nn.norm.adaptive_norm import AdaptiveLayerNorm, AdaptiveRMSNorm
from pyg_stmamba.nn.norm.rms_norm import RMSNorm

NORMS = {"layer": nn.LayerNorm, "rms": RMSNorm}
ADAPTIVE_NORMS = {
    "adaptive": AdaptiveLayerNorm,
    "adaptive_layer": AdaptiveLayerNorm,
    "adaptive_rms": AdaptiveRMSNorm,
}


def norm_resolver(
    query: str | Callable[[int], nn.Module],
    channels: int,
    eps: float = 1e-5,
    cond_dim: int | None = None,
) -> nn.Module:
    r"""Builds a norm of a name, or by a function of the number of channels.

    Args:
        query (str or callable): :obj:`"layer"`, :obj:`"rms"`, :obj:`"adaptive"` (also called
            :obj:`"adaptive_layer"`), :obj:`"adaptive_rms"`, or what builds a norm from
            :obj:`channels` alone.
        channels (int): Size of each sample.
        eps (float, optional): Added to the variance. (default: :obj:`1e-5`)
        cond_dim (int, optional): Size of the condition of an adaptive norm.
            (default: :obj:`None`)

    Raises:
        ValueError: If the name is unknown; the choices are listed. Also if the norm takes no
            condition but one is asked for.
    """
    if not isinstance(query, str):
        if isinstance(query, nn.Module) or not callable(query):
            raise ValueError(
                f"a norm is built anew wherever one stands: pass a name or a function of channels, "
                f"got {query!r}"
            )
        return query(channels)
    if query in ADAPTIVE_NORMS:
        return ADAPTIVE_NORMS[query](channels, cond_dim, eps)
    if query not in NORMS:
        choices = sorted([*NORMS, *ADAPTIVE_NORMS])
        raise ValueError(f"unknown norm {query!r}; choose one of {choices}")
    if cond_dim is not None:
        raise ValueError(
            f"the norm {query!r} takes no condition, got cond_dim={cond_dim}; choose one of "
            f"{sorted(ADAPTIVE_NORMS)}, or leave cond_dim at None"
        )
    return NORMS[query](channels, eps)
