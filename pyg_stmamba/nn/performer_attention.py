from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_stmamba.ops.linear_attention import LinearAttentionState, linear_attention
from pyg_stmamba.ops.random_features import (
    Features,
    hyperbolic_features,
    optimal_features,
    positive_features,
    random_projection,
    relu_features,
)

FEATURE_MAPS = {
    "optimal": optimal_features,
    "positive": positive_features,
    "hyperbolic": hyperbolic_features,
}


class PerformerAttention(nn.Module):
    r"""Attention in linear time by random features (FAVOR+), from the `"Rethinking Attention with
    Performers" <https://arxiv.org/abs/2009.14794>`_ paper.

    .. math::
        \mathbf{y}_i = \frac{\sum_j \phi(\mathbf{x}_i)^{\top} \phi(\mathbf{z}_j) \, \mathbf{v}_j}
        {\sum_j \phi(\mathbf{x}_i)^{\top} \phi(\mathbf{z}_j)}, \qquad
        \mathbf{x} = d^{-1/4} \mathbf{q}, \quad \mathbf{z} = d^{-1/4} \mathbf{k}, \qquad
        \mathbb{E} \left[ \phi(\mathbf{x})^{\top} \phi(\mathbf{z}) \right] =
        \exp \left( \mathbf{q}^{\top} \mathbf{k} / \sqrt{d} \right)

    The kernel is estimated without bias; attention, a ratio of estimates, comes close to softmax
    attention as features become many. How many it takes grows with
    :math:`\exp(\Vert \mathbf{x} + \mathbf{z} \Vert^2)`: entries of queries and keys of about
    :math:`1/2` are well served by the default number, those of about 1 are not; then take
    :obj:`qk_norm` or more features.

    The directions of the features are drawn anew by the owning model, see
    :func:`redraw_when_due`, never in here: layers may run twice in a step when they are
    checkpointed. Draw and count are part of the state dict, and each draw follows from the seed
    and its number.

    Args:
        dim_heads (int): Size :math:`d` of queries and keys of a head.
        nb_features (int, optional): Number of directions.
            (default: :obj:`None`, the larger of 64 and :math:`d \ln d`)
        ortho_scaling (int, optional): With :obj:`0` orthogonal directions have random norms, with
            :obj:`1` all have :math:`\sqrt{d}`, with which the softmax kernel is estimated with a
            bias. (default: :obj:`0`)
        redraw_interval (int, optional): After how many training passes of the owning model the
            directions are drawn anew; never if :obj:`None`. (default: :obj:`1000`)
        causal (bool, optional): Whether a query sees keys up to its own place only.
            (default: :obj:`False`)
        kernel (str, optional): :obj:`"softmax"`, or :obj:`"relu"`, which is another kernel and no
            approximation of softmax. (default: :obj:`"softmax"`)
        orthogonal (bool, optional): Whether directions are orthogonal in blocks, which lowers the
            variance. (default: :obj:`True`)
        feature_map (str, optional): Of the softmax kernel, :obj:`"optimal"`,
            :obj:`"positive"` as in the paper, with more variance, or :obj:`"hyperbolic"`, which
            takes each direction both ways. With :obj:`ortho_scaling=1` the first is the second.
            (default: :obj:`"optimal"`)
        eps (float, optional): Added to features, relative to the largest of a row. Anything but
            zero keeps attention from coming close to softmax. (default: :obj:`0.0`)
        qk_norm (bool, optional): Whether queries and keys are brought to length one, times a
            temperature that is learned and starts at 1. (default: :obj:`False`)
        mask_flag (bool, optional): Another name of :obj:`causal`. (default: :obj:`False`)
        generator (torch.Generator, optional): Where the seed comes from; torch's own if not
            given. (default: :obj:`None`)

    Shapes:
        - **input:** queries :math:`(B, L, H, d)`, keys :math:`(B, S, H, d)`, values
          :math:`(B, S, H, E)`, attention mask :math:`(B, S)` *(optional)*, time index :math:`(S)`
          *(optional)*
        - **output:** :math:`(B, L, H, E)`, and the weights :math:`(B, H, L, S)` or :obj:`None`

    Raises:
        ValueError: If an option is unknown, or a mask of pairs is given.
    """

    projection: Tensor
    seed: Tensor
    draws: Tensor
    calls_since_last_redraw: Tensor

    def __init__(
        self,
        dim_heads: int,
        nb_features: int | None = None,
        ortho_scaling: int = 0,
        redraw_interval: int | None = 1000,
        causal: bool = False,
        kernel: Literal["softmax", "relu"] = "softmax",
        orthogonal: bool = True,
        feature_map: Literal["optimal", "positive", "hyperbolic"] = "optimal",
        eps: float = 0.0,
        qk_norm: bool = False,
        mask_flag: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if dim_heads < 1:
            raise ValueError(f"dim_heads must be at least 1, got {dim_heads}")
        if nb_features is None:
            nb_features = max(64, math.ceil(dim_heads * math.log(dim_heads)))
        for name, value, choices in (
            ("kernel", kernel, ("softmax", "relu")),
            ("feature_map", feature_map, tuple(FEATURE_MAPS)),
            ("ortho_scaling", ortho_scaling, (0, 1)),
        ):
            if value not in choices:
                raise ValueError(f"{name}={value!r} is unknown; choose from {choices}")
        if nb_features < 1 or (redraw_interval is not None and redraw_interval < 1):
            raise ValueError(
                "nb_features and redraw_interval must be at least 1, got "
                f"nb_features={nb_features}, redraw_interval={redraw_interval}"
            )
        if ortho_scaling == 1 and orthogonal and kernel == "softmax":
            warnings.warn(
                "ortho_scaling=1 gives all directions one length, with which the softmax kernel "
                "is estimated with a bias; ortho_scaling=0 has none",
                stacklevel=2,
            )
        self.dim_heads, self.nb_features = dim_heads, nb_features
        self.ortho_scaling, self.orthogonal = ortho_scaling, orthogonal
        self.redraw_interval = redraw_interval
        self.causal = causal or mask_flag
        self.kernel, self.eps, self.qk_norm = kernel, eps, qk_norm
        # Less weight on long directions is right only where they are of all lengths.
        all_alike = ortho_scaling == 1 and orthogonal and feature_map == "optimal"
        self.feature_map = "positive" if all_alike else feature_map
        self.log_temperature = nn.Parameter(torch.empty(())) if qk_norm else None
        self.register_buffer("projection", torch.empty(nb_features, dim_heads))
        for name in ("seed", "draws", "calls_since_last_redraw"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        r"""Takes a new seed and draws the directions from it."""
        self.seed.copy_(torch.randint(2**40, (), generator=generator, device="cpu"))
        self.draws.zero_()
        self.calls_since_last_redraw.zero_()
        self._draw()
        if self.log_temperature is not None:
            # Rows of length one are well served by few features.
            nn.init.zeros_(self.log_temperature)

    def redraw_projection(self) -> None:
        r"""Draws the directions anew."""
        self.draws.add_(1)
        self.calls_since_last_redraw.zero_()
        self._draw()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        output_attention: bool = False,
        time_index: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        r"""Attends.

        Args:
            query (torch.Tensor): The queries.
            key (torch.Tensor): The keys.
            value (torch.Tensor): The values.
            attention_mask (torch.Tensor, optional): Booleans, one a key, :obj:`True` = not
                allowed. (default: :obj:`None`)
            output_attention (bool, optional): Whether to return the weights too, which takes
                quadratic time and memory. (default: :obj:`False`)
            time_index (torch.Tensor, optional): The time of each token: a query sees the keys of
                its own time and of earlier ones, in whatever order they lie.
                (default: :obj:`None`)
        """
        if attention_mask is not None and attention_mask.shape != key.shape[:2]:
            raise ValueError(
                "attention by random features can leave out keys, with an attention_mask of shape "
                f"[B, S] = {list(key.shape[:2])}, but no single pairs; got "
                f"{list(attention_mask.shape)}. Take full attention for those"
            )
        if attention_mask is not None and attention_mask.dtype != torch.bool:
            raise ValueError(f"attention_mask must be boolean, got {attention_mask.dtype}")
        out, _ = self.attend(query, key, value, attention_mask, time_index=time_index)
        if not output_attention:
            return out, None
        # What arrives when each key has a value of its own: the weights.
        one_hot = torch.eye(key.size(1), dtype=out.dtype, device=out.device)
        one_hot = one_hot.unsqueeze(1).expand(*key.shape[:3], -1)
        weights, _ = self.attend(query, key, one_hot, attention_mask, time_index=time_index)
        return out, weights.transpose(1, 2)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding_mask: Tensor | None = None,
        time_index: Tensor | None = None,
        initial_state: LinearAttentionState | None = None,
        return_final_state: bool = False,
    ) -> tuple[Tensor, LinearAttentionState | None]:
        r"""Attends on any leading dimensions and returns where it stopped.

        Shapes:
            - **input:** queries :math:`(*, L, H, d)`, keys :math:`(*, S, H, d)`, values
              :math:`(*, S, H, E)`, padding mask :math:`(*, S)`
            - **output:** :math:`(*, L, H, E)`, and the state, :obj:`None` unless asked for
        """
        dtype = value.dtype
        if padding_mask is not None:
            hidden = padding_mask[..., None, None]
            key, value = key.masked_fill(hidden, 0.0), value.masked_fill(hidden, 0.0)
            padding_mask = padding_mask.unsqueeze(-2).expand(*key.shape[:-3], key.size(-2), -1)
        # Exponentials need the range and the digits of float32.
        wide = torch.promote_types(dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            query, key, value = (x.to(wide).transpose(-3, -2) for x in (query, key, value))
            queries, keys = self.features(query), self.features(key)
            result = linear_attention(
                queries.values,
                keys.values,
                value,
                keys.log_scale,
                padding_mask,
                causal=self.causal and time_index is None,
                time_index=time_index,
                initial_state=initial_state,
                return_final_state=return_final_state,
            )
        out, state = result if isinstance(result, tuple) else (result, None)
        return out.transpose(-3, -2).to(dtype), state

    def features(self, x: Tensor) -> Features:
        r"""Returns the random features of queries or keys.

        Shapes:
            - **input:** :math:`(*, L, d)`
            - **output:** values :math:`(*, L, M)` and log scales :math:`(*, L)`
        """
        if self.log_temperature is not None:
            x = F.normalize(x, dim=-1) * (0.5 * self.log_temperature.to(x.dtype)).exp()
        else:
            x = x * self.dim_heads**-0.25
        # A copy: a new draw may come between this pass and its gradients.
        projection = self.projection.to(x.dtype, copy=True)
        if self.kernel == "relu":
            return relu_features(x, projection)
        features = FEATURE_MAPS[self.feature_map](x, projection)
        return features._replace(values=features.values + self.eps) if self.eps else features

    def _draw(self) -> None:
        if self.projection.is_meta:
            return
        generator = torch.Generator("cpu")
        generator.manual_seed(int(self.seed) * 2**20 + int(self.draws))
        drawn = random_projection(
            self.nb_features, self.dim_heads, self.orthogonal, self.ortho_scaling, generator
        )
        self.projection.copy_(drawn)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.dim_heads}, nb_features={self.nb_features}, "
            f"kernel={self.kernel!r}, causal={self.causal})"
        )


def redraw_projections(model: nn.Module) -> None:
    r"""Draws the directions of every :class:`PerformerAttention` in a model anew.

    Args:
        model (torch.nn.Module): The model.
    """
    for module in model.modules():
        if isinstance(module, PerformerAttention):
            module.redraw_projection()


def redraw_when_due(model: nn.Module) -> None:
    r"""Counts a training pass for every :class:`PerformerAttention` in a model, and draws the
    directions anew of those whose interval is over; to be called by the model, once a pass.

    Since the draw follows from the state dict, all processes of a distributed training draw the
    same.

    Args:
        model (torch.nn.Module): The model; in evaluation mode nothing happens.
    """
    if not model.training:
        return
    for module in model.modules():
        if isinstance(module, PerformerAttention) and module.redraw_interval is not None:
            module.calls_since_last_redraw.add_(1)
            if int(module.calls_since_last_redraw) > module.redraw_interval:
                module.redraw_projection()
                module.calls_since_last_redraw.fill_(1)
