"""Independent computations of what the operators compute."""

from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from pyg_stmamba.nn import SpatialGAT, TemporalMamba


def mamba_mixer(op: TemporalMamba) -> nn.Module:
    """Hugging Face's Mamba layer with the weights of `op`; called on [rows, T, C]."""
    mamba = pytest.importorskip("transformers.models.mamba.modeling_mamba")
    config = mamba.MambaConfig(
        hidden_size=op.channels,
        state_size=op.d_state,
        conv_kernel=op.d_conv,
        expand=op.expand,
        time_step_rank=op.dt_rank,
        use_conv_bias=op.conv1d.bias is not None,
        use_bias=op.in_proj.bias is not None,
        num_hidden_layers=1,
        use_mambapy=False,
    )
    mixer = mamba.MambaMixer(config, layer_idx=0)
    mixer.load_state_dict(op.state_dict(), strict=True)
    return mixer.eval()


def mamba_recurrence(op: TemporalMamba, u: Tensor) -> np.ndarray:
    """The equations of the paper for one series u[T, C], in float64 and numbers only."""
    p = {name: value.detach().double().numpy() for name, value in op.state_dict().items()}
    A = -np.exp(p["A_log"])
    R, N = op.dt_rank, op.d_state
    x, z = np.split(u.double().numpy() @ p["in_proj.weight"].T, 2, axis=1)
    T, E = x.shape
    h = np.zeros((E, N))
    y = np.zeros((T, E))
    for t in range(T):
        c = p["conv1d.bias"].copy()
        for k in range(op.d_conv):
            s = t - op.d_conv + 1 + k
            if s >= 0:
                c += p["conv1d.weight"][:, 0, k] * x[s]
        c = c / (1 + np.exp(-c))
        projected = p["x_proj.weight"] @ c
        low, B, C = projected[:R], projected[R : R + N], projected[R + N :]
        delta = np.log1p(np.exp(p["dt_proj.weight"] @ low + p["dt_proj.bias"]))
        for e in range(E):
            for n in range(N):
                h[e, n] = np.exp(delta[e] * A[e, n]) * h[e, n] + delta[e] * B[n] * c[e]
            y[t, e] = (C * h[e]).sum() + p["D"][e] * c[e]
        y[t] *= z[t] / (1 + np.exp(-z[t]))
    return y @ p["out_proj.weight"].T


def gat_edge_by_edge(
    op: SpatialGAT, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None
) -> np.ndarray:
    """Graph attention of one instant x[N, C] on exactly the given edges, a softmax at a time."""
    p: dict[str, Any] = {k: v.detach().double().numpy() for k, v in op.state_dict().items()}
    H, C = op.heads, op.out_channels
    value = (x.double().numpy() @ p["lin.weight"].T).reshape(-1, H, C)
    edges = edge_index.t().tolist()
    out = np.zeros_like(value)
    for i in range(x.size(0)):
        into = [e for e, (_, target) in enumerate(edges) if target == i]
        if not into:
            continue
        for h in range(H):
            logits = []
            for e in into:
                j = edges[e][0]
                logit = p["att_src"][0, h] @ value[j, h] + p["att_dst"][0, h] @ value[i, h]
                if edge_attr is not None:
                    feature = p["lin_edge.weight"] @ edge_attr[e].double().numpy()
                    logit += p["att_edge"][0, h] @ feature.reshape(H, C)[h]
                logits.append(logit if logit > 0 else op.negative_slope * logit)
            weights = np.exp(np.array(logits) - max(logits))
            weights /= weights.sum()
            for e, weight in zip(into, weights):
                out[i, h] += weight * value[edges[e][0], h]
    return out.reshape(x.size(0), -1) + p["bias"]
