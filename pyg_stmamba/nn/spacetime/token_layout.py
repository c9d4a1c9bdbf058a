from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn


def localize(tokens: Tensor, num_variables: int) -> Tensor:
    r"""Turns the tokens of all variables into one series for each variable, a batch of which is
    what an operator over time reads.

    .. code-block:: python

        x = torch.randn(8, 49 * 12, 64)  # 8 windows of 12 steps of 49 variables
        localize(x, 49).shape            # [392, 12, 64], all windows of variable 0 first

    Args:
        tokens (torch.Tensor): The tokens, variable by variable, or a mask of them.
        num_variables (int): Number of variables :math:`N`.

    Shapes:
        - **input:** :math:`(B, N \cdot L, *)`
        - **output:** :math:`(N \cdot B, L, *)`

    Raises:
        ValueError: If the tokens do not divide into the variables.
    """
    check_tokens(tokens, num_variables)
    return rearrange(
        tokens, "batch (variable time) ... -> (variable batch) time ...", variable=num_variables
    )


def reverse_localize(series: Tensor, num_variables: int) -> Tensor:
    r"""Takes :func:`localize` back.

    Args:
        series (torch.Tensor): One series for each variable and window.
        num_variables (int): Number of variables :math:`N`.

    Shapes:
        - **input:** :math:`(N \cdot B, L, *)`
        - **output:** :math:`(B, N \cdot L, *)`

    Raises:
        ValueError: If the series do not divide into the variables.
    """
    if series.dim() < 2 or num_variables < 1 or series.size(0) % num_variables != 0:
        raise ValueError(
            f"expected series [N * B, L, ...] of N = {num_variables} variables, got a tensor of "
            f"shape {list(series.shape)}"
        )
    return rearrange(
        series, "(variable batch) time ... -> batch (variable time) ...", variable=num_variables
    )


def check_tokens(tokens: Tensor, num_variables: int, d_model: int | None = None) -> None:
    r"""Raises if a tensor does not hold the tokens of so many variables.

    Args:
        tokens (torch.Tensor): The tokens.
        num_variables (int): Number of variables :math:`N`.
        d_model (int, optional): Size of each token; :obj:`None` allows any, and a mask.
            (default: :obj:`None`)

    Shapes:
        - **input:** :math:`(B, N \cdot L, *)`, or :math:`(B, N \cdot L, D)` if the size is given

    Raises:
        ValueError: If it does not.
    """
    divides = tokens.dim() >= 2 and num_variables >= 1 and tokens.size(1) % num_variables == 0
    if not divides or (d_model is not None and tokens.shape[2:] != (d_model,)):
        size = "..." if d_model is None else f"D = {d_model}"
        raise ValueError(
            f"expected tokens [B, N * L, {size}] of N = {num_variables} variables, got a tensor "
            f"of shape {list(tokens.shape)}"
        )


class Flatten(nn.Module):
    r"""Turns a window of several series into one token for each variable and step.

    Shapes:
        - **input:** :math:`(B, L, N)`
        - **output:** :math:`(B, N \cdot L, 1)`, variable by variable
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3:
            raise ValueError(f"expected series [B, L, N], got a tensor of shape {list(x.shape)}")
        return rearrange(x, "batch time variable -> batch (variable time) 1")


class PredRearrange(nn.Module):
    r"""Turns what is predicted at each token into series; with one prediction a token this takes
    :class:`Flatten` back.

    Args:
        num_variables (int): Number of variables :math:`N`.

    Shapes:
        - **input:** :math:`(B, N \cdot L, D)`, variable by variable
        - **output:** :math:`(B, L, N)` if :math:`D = 1`, else :math:`(D, B, L, N)`
    """

    def __init__(self, num_variables: int) -> None:
        super().__init__()
        self.num_variables = num_variables

    def forward(self, tokens: Tensor) -> Tensor:
        check_tokens(tokens, self.num_variables, tokens.size(-1))
        series = rearrange(
            tokens,
            "batch (variable time) out -> out batch time variable",
            variable=self.num_variables,
        )
        return series.squeeze(0) if series.size(0) == 1 else series

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_variables})"


class Localize(nn.Module):
    r"""The module of :func:`localize`.

    Args:
        num_variables (int): Number of variables :math:`N`.

    Shapes:
        - **input:** :math:`(B, N \cdot L, *)`, variable by variable
        - **output:** :math:`(N \cdot B, L, *)`
    """

    def __init__(self, num_variables: int) -> None:
        super().__init__()
        self.num_variables = num_variables

    def forward(self, tokens: Tensor) -> Tensor:
        return localize(tokens, self.num_variables)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_variables})"


class ReverseLocalize(nn.Module):
    r"""The module of :func:`reverse_localize`.

    Args:
        num_variables (int): Number of variables :math:`N`.

    Shapes:
        - **input:** :math:`(N \cdot B, L, *)`
        - **output:** :math:`(B, N \cdot L, *)`, variable by variable
    """

    def __init__(self, num_variables: int) -> None:
        super().__init__()
        self.num_variables = num_variables

    def forward(self, series: Tensor) -> Tensor:
        return reverse_localize(series, self.num_variables)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_variables})"
