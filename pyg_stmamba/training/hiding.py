from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Hiding(NamedTuple):
    r"""How observed entries are hidden from an imputer, so that it can be trained and measured on
    them: each window draws for itself what a real record lacks.

    A window hides, each with its own probability and independent of each other,

    * what some other window lacks: gaps as they are, in length and in time and between nodes,
    * single entries, of which it draws the share,
    * at each node one stretch of time, or all of it,
    * one stretch of time at all nodes at once.

    Args:
        borrowed (float, optional): Probability that a window hides what another one lacks.
            (default: :obj:`0.3`)
        points (float, optional): The largest share of single entries. (default: :obj:`0.3`)
        blocks (float, optional): Probability that a node hides a stretch of time.
            (default: :obj:`0.1`)
        silent (float, optional): Probability that a node hides all. (default: :obj:`0.02`)
        outage (float, optional): Probability that a window hides a stretch of time at all nodes.
            (default: :obj:`0.2`)
        longest (int, optional): The longest stretch, in steps. (default: :obj:`12`)
    """

    borrowed: float = 0.3
    points: float = 0.3
    blocks: float = 0.1
    silent: float = 0.02
    outage: float = 0.2
    longest: int = 12

    def check(self) -> None:
        r"""Raises :class:`ValueError` where an option makes no sense."""
        for name, value in self._asdict().items():
            if name != "longest" and not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must lie in [0, 1]")
        if self.longest < 1:
            raise ValueError(f"longest={self.longest} must be at least 1")

    def draw(self, mask: Tensor, donor: Tensor, generator: torch.Generator) -> Tensor:
        r"""Returns which of the observed entries are hidden.

        Args:
            mask (torch.Tensor): What is observed, boolean :math:`[N, B, T, C]`.
            donor (torch.Tensor): What other windows observe, of the same shape.
            generator (torch.Generator): Where chance comes from.
        """
        num_nodes, windows, steps = mask.shape[:3]

        def chance(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        def stretch(*shape: int) -> Tensor:
            length = 1 + (chance(*shape, 1) * min(self.longest, steps)).long()
            # From before the first step on, so that the steps at the border are hidden as often.
            start = (chance(*shape, 1) * (steps + length - 1)).long() - length + 1
            step = torch.arange(steps)
            return (step >= start) & (step < start + length)

        hidden = donor.logical_not() & (chance(1, windows, 1, 1) < self.borrowed)
        hidden = hidden | (chance(*mask.shape) < self.points * chance(1, windows, 1, 1))
        of_node = stretch(num_nodes, windows) & (chance(num_nodes, windows, 1) < self.blocks)
        of_node = of_node | (chance(num_nodes, windows, 1) < self.silent)
        of_node = of_node | (stretch(1, windows) & (chance(1, windows, 1) < self.outage))
        return mask & (hidden | of_node.unsqueeze(-1))
