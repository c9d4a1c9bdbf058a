from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 16


class GrowingBuffer:
    r"""Room for sequences that grow at their end, so that a step copies the step alone, and all
    that came before only each time the length has doubled.

    The sequences shown to others are views of it. Steps that somebody sees are never changed: who
    goes on from the end writes into free room, who goes on from an earlier place gets a copy.

    Args:
        sequence (torch.Tensor): What it holds at first, of which a copy is taken.
        room (int, optional): For how many steps there shall be room, twice the present ones at
            least. (default: :obj:`16`)

    Shapes:
        - **input:** :math:`(*, T, C)`
    """

    def __init__(self, sequence: Tensor, room: int = SMALLEST) -> None:
        *rows, self.length, channels = sequence.shape
        self.storage = sequence.new_empty(*rows, max(room, 2 * self.length), channels)
        self.storage[..., : self.length, :] = sequence

    def view(self, length: int) -> Tensor:
        r"""The first steps."""
        return self.storage[..., :length, :]

    def holds(self, sequences: tuple[Tensor, ...]) -> bool:
        r"""Whether these are the first steps, stacked, and not something made of them since."""
        length = sequences[0].size(-2)
        if len(sequences) != self.storage.size(0) or length > self.length:
            return False
        return all(
            mine.shape == given.shape
            and mine.stride() == given.stride()
            and mine.data_ptr() == given.data_ptr()
            and mine.dtype == given.dtype
            and mine.device == given.device
            for mine, given in zip(self.view(length), sequences)
        )

    def append(self, length: int, steps: Tensor) -> GrowingBuffer:
        r"""Puts steps after the first :obj:`length` ones; returns the buffer that holds all of
        them, itself where nobody has gone on from there before and there is room."""
        total = length + steps.size(-2)
        writable = torch.is_inference_mode_enabled() or not self.storage.is_inference()
        if length != self.length or total > self.storage.size(-2) or not writable:
            return GrowingBuffer(self.view(length), 2 * total).append(length, steps)
        self.storage[..., length:total, :] = steps
        self.length = total
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.length} of {self.storage.size(-2)} steps)"
