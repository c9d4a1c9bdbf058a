r"""One function, computed by several."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

Layout = Mapping[str, str]
OURS: Layout = MappingProxyType({})


class Contender(NamedTuple):
    r"""One way to compute the function of a case.

    Args:
        name (str): Who computes it.
        forward (callable): Computes the output, without arguments.
        leaves (dict[str, torch.Tensor]): What the output is differentiated by.
        layout (Mapping[str, str], optional): By the name of a leaf (or :obj:`"y"`, the output),
            the einops pattern that leads from the layout of ours to that of this one.
            (default: that of ours)
    """

    name: str
    forward: Callable[[], Tensor]
    leaves: dict[str, Tensor]
    layout: Layout = OURS

    def cotangent(self, of_ours: Tensor) -> Tensor:
        r"""Brings a gradient of the output into the layout of this contender."""
        return to_layout(self.layout, "y", of_ours)

    def step(self, cotangent: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        r"""Returns the output, and the gradients of the leaves unless there is no cotangent."""
        if cotangent is None:
            with torch.no_grad():
                return self.forward(), ()
        y = self.forward()
        return y, torch.autograd.grad(y, list(self.leaves.values()), cotangent)

    def results(self, cotangent: Tensor | None) -> dict[str, Tensor]:
        r"""Returns what :meth:`step` does, by name and in the layout of ours."""
        y, grads = self.step(cotangent)
        found = {"y": _from_layout(self.layout, "y", y.detach())}
        for name, grad in zip(self.leaves, grads):
            found[f"gradient of {name}"] = _from_layout(self.layout, name, grad)
        return found


class Case(NamedTuple):
    r"""A function at one shape, and who computes it.

    Args:
        name (str): The function.
        shape (str): The sizes.
        ours (Contender): Ours.
        peers (list of Contender): The others.
        left_out (dict[str, str]): Why other peers do not take part.
        tolerance (float): Largest error relative to the largest value that counts as equal.
        train (bool): Whether gradients are computed too.
    """

    name: str
    shape: str
    ours: Contender
    peers: list[Contender]
    left_out: dict[str, str]
    tolerance: float
    train: bool = True


def of_function(
    name: str, function: Callable[..., Tensor], inputs: Mapping[str, Tensor], layout: Layout = OURS
) -> Contender:
    r"""A contender that is a function of named tensors, given in the layout of ours."""
    leaves = {
        key: to_layout(layout, key, value).detach().clone().requires_grad_()
        for key, value in inputs.items()
    }
    return Contender(name, lambda: function(**leaves), leaves, layout)


def of_module(
    name: str,
    module: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    *others: Any,
    layout: Layout = OURS,
    **options: Any,
) -> Contender:
    r"""A contender that is a module with the weights of ours, called on :obj:`x` and others."""
    module = module.to(x.device, x.dtype)
    module.load_state_dict({key: to_layout(layout, key, value) for key, value in weights.items()})
    leaf = to_layout(layout, "x", x).detach().clone().requires_grad_()
    leaves = {"x": leaf, **dict(module.named_parameters())}
    return Contender(name, lambda: module(leaf, *others, **options), leaves, layout)


def to_layout(layout: Layout, name: str, tensor: Tensor) -> Tensor:
    r"""Brings a tensor of ours into another layout, in memory too."""
    return rearrange(tensor, layout[name]).contiguous() if name in layout else tensor


def _from_layout(layout: Layout, name: str, tensor: Tensor) -> Tensor:
    if name not in layout:
        return tensor
    ours, theirs = layout[name].split("->")
    return rearrange(tensor, f"{theirs} -> {ours}")
