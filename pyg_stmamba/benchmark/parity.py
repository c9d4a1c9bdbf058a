r"""Whether two computations of one function agree."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# What ours may be off by, relative to the largest value of each output and gradient.
TOLERANCES = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 2e-2,
}


class Parity(NamedTuple):
    r"""How far outputs and gradients lie from the right ones.

    Args:
        errors (dict[str, float]): By tensor, the largest error relative to the largest value.
        tolerance (float): The error up to which they agree.
    """

    errors: dict[str, float]
    tolerance: float

    @property
    def worst(self) -> tuple[str, float]:
        r"""The tensor with the largest error, and that error."""
        return max(self.errors.items(), key=lambda item: item[1])

    @property
    def holds(self) -> bool:
        r"""Whether every error is within the tolerance."""
        return self.worst[1] <= self.tolerance

    def __str__(self) -> str:
        name, error = self.worst
        sign = "<=" if self.holds else ">"
        return f"{name} is off by {error:.1e} {sign} {self.tolerance:.0e}"


def parity(found: Mapping[str, Tensor], right: Mapping[str, Tensor], tolerance: float) -> Parity:
    r"""Compares tensors of the same names.

    Args:
        found (Mapping[str, torch.Tensor]): What was computed.
        right (Mapping[str, torch.Tensor]): What is right.
        tolerance (float): The error up to which they agree.
    """
    if found.keys() != right.keys():
        raise ValueError(f"got {sorted(found)} to compare with {sorted(right)}")
    return Parity({name: relative_error(found[name], right[name]) for name in right}, tolerance)


def relative_error(found: Tensor, right: Tensor) -> float:
    r"""Returns the largest error relative to the largest value, or infinity where shapes differ
    or anything is not finite."""
    if found.shape != right.shape:
        return math.inf
    if right.numel() == 0:
        return 0.0
    difference = float((found.to(right.device).double() - right.double()).abs().max())
    largest = float(right.double().abs().max())
    if not math.isfinite(difference):
        return math.inf
    return difference / largest if largest > 0 else difference
