"""How many bytes of tensors live at once."""

import weakref
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Adds up the storages that operations make while it is entered; `peak` is the most bytes
    alive at once, `current` the bytes alive now. What was there before does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        for given in _storages((args, kwargs)):
            self._track(given, 0)
        name = func.name()
        if name in OPDEFS:
            # A mode does not look into custom operations by itself.
            with self:
                out = OPDEFS[name]._init_fn(*args, **(kwargs or {}))
        else:
            out = func(*args, **(kwargs or {}))
        for made in _storages(out):
            self._track(made, made.nbytes())
        return out

    def _track(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = size
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.current -= self._known.pop(key, 0)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
