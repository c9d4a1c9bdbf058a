r"""How many bytes a computation needs at once, beyond what was there before."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    r"""Returns the most bytes of tensors alive at once during :obj:`run`.

    On a GPU that is what the caching allocator handed out. On a CPU it is the sum of the storages
    that operations return; what they use inside and free again does not count, neither for ours
    (the Numba kernels keep some hundred kilobytes a thread in arrays of their own) nor for a peer.

    Args:
        run (callable): The computation.
        device (torch.device): Where it runs.
    """
    if device.type != "cuda":
        with StorageCounter() as counter:
            run()
        return counter.peak
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


class StorageCounter(TorchDispatchMode):
    r"""Adds up the storages made while it is entered, each until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.current = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._add(storage, 0)
        definition = OPDEFS.get(func.name())
        if definition is None:
            out = func(*args, **kwargs)
        else:
            # The mode is off inside of a custom operation unless it is entered again.
            with self:
                out = definition._init_fn(*args, **kwargs)
        for storage in _storages(out):
            self._add(storage, storage.nbytes())
        return out

    def _add(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = size
            self.current += size
            self.peak = max(self.peak, self.current)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.current -= self._alive.pop(key, 0)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
