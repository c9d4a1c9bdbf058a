from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class FittedToData(nn.Module):
    r"""A module whose buffers get their sizes from the data that it is fitted to; loading a state
    dict restores the sizes too."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in list(self.named_buffers()):
            stored = state_dict.get(prefix + name)
            if stored is not None:
                owner, _, leaf = name.rpartition(".")
                setattr(self.get_submodule(owner), leaf, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
