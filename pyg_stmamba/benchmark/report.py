r"""A set of cases measured one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from pyg_stmamba.data.whole_file import written_whole

from .cases import Build
from .comparison import compare
from .machine import describe_machine
from .table import markdown_table


class Report(NamedTuple):
    r"""What a set came to.

    Args:
        text (str): The table and what it was measured on, as Markdown.
        agrees (bool): Whether every peer that took part agrees with ours.
    """

    text: str
    agrees: bool

    def write(self, path: str | Path) -> None:
        r"""Writes the text to a file, as a whole."""
        with written_whole(path) as temporary:
            temporary.write_text(self.text + "\n", encoding="utf-8")


def measure_set(
    builds: Sequence[Build], device: str | torch.device = "cpu", repeats: int = 5
) -> Report:
    r"""Measures cases one after the other, with a progress line.

    Args:
        builds (Sequence[callable]): What sets the cases up, see
            :obj:`~pyg_stmamba.benchmark.SETS`.
        device (str or torch.device, optional): Where to measure. (default: :obj:`"cpu"`)
        repeats (int, optional): How often each is timed. (default: :obj:`5`)
    """
    device = checked_device(device)
    comparisons = []
    with tqdm(builds, desc="benchmark") as bar:
        for build in bar:
            case = build(device=device)
            bar.set_postfix_str(f"{case.name}, {case.shape}")
            comparisons.append(compare(case, device, repeats))
    text = f"{describe_machine(device)}\n\n{markdown_table(comparisons)}"
    return Report(text, not any(comparison.refused for comparison in comparisons))


def checked_device(device: str | torch.device) -> torch.device:
    r"""Returns the device, if it is a CPU or a GPU that is there."""
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device={str(device)!r} is unknown; choose from 'cpu', 'cuda'")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} is not there: this machine has no CUDA GPU")
    return found
