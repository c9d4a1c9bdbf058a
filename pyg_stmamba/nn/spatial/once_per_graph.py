from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def once_per_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    r"""Decorates a function of :obj:`edge_index` and plain values so that it runs once for each
    graph; the result is kept as long as the tensor lives unchanged.
    """
    kept: dict[int, tuple[weakref.ref, int, tuple[Any, ...], Any]] = {}

    @functools.wraps(function)
    def remembered(edge_index: Tensor, *arguments: Any) -> Any:
        if torch.compiler.is_compiling() or edge_index.is_inference():
            return function(edge_index, *arguments)
        key = id(edge_index)
        if key in kept:
            tensor, version, before, result = kept[key]
            if tensor() is edge_index and (version, before) == (edge_index._version, arguments):
                return result
        with torch.inference_mode(False):  # what is kept may be needed in training later
            result = function(edge_index, *arguments)
        tensor = weakref.ref(edge_index, lambda _: kept.pop(key, None))
        kept[key] = (tensor, edge_index._version, arguments, result)
        return result

    return remembered
