from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.models import MODELS, Ensemble

from .forecast_module import ForecastModule


class Forecaster(NamedTuple):
    r"""A trained model and what it was trained on.

    Args:
        model (torch.nn.Module): The model in evaluation mode, its scaler included.
        protocol (Protocol): Lengths and splits of the training run.
        facts (dict[str, Any]): Node ids, channels, units, seconds a step and the like of the
            training data.
    """

    model: nn.Module
    protocol: Protocol
    facts: dict[str, Any]


def describe(model: nn.Module, graph: TemporalGraph, protocol: Protocol) -> dict[str, Any]:
    r"""Returns the plain values from which :func:`load_forecaster` builds the model again."""
    config: Any = getattr(model, "config", None)
    arguments = None if config is None else config()
    return {
        "class": type(model).__name__,
        # A model that was given modules as arguments cannot be written as plain values.
        "arguments": arguments if arguments is not None and is_plain(arguments) else None,
        "protocol": protocol._asdict(),
        "facts": {
            "node_ids": list(graph.node_id),
            "channels": list(graph.channel_names),
            "units": list(graph.units),
            "step_seconds": graph.step_seconds,
            "steps_per_day": graph.steps_per_day,
            "edge_features": _edge_features(graph),
        },
    }


def load_forecaster(path: str | Path, model: nn.Module | None = None) -> Forecaster:
    r"""Loads a forecaster from a checkpoint; nothing but tensors and plain values is read.

    Args:
        path (str or Path): A checkpoint, or the folder of a run, which means its best one.
        model (torch.nn.Module, optional): A model of the right shape; needed only for classes
            that this package does not know and for models that were built from modules.
            (default: :obj:`None`)
    """
    description, weights = read_checkpoint(path, ForecastModule.kind)
    if model is None:
        model = _build(description, Path(path))
    model.load_state_dict(weights)
    return Forecaster(model.eval(), Protocol(**description["protocol"]), description["facts"])


def read_checkpoint(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    r"""Reads the description and the weights of a model; nothing but tensors and plain values.

    Args:
        path (str or Path): A checkpoint, or the folder of a run, which means its best one.
        kind (str): What it must hold, as in :obj:`"forecaster"`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds something else.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: no checkpoint to load")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        description = checkpoint[kind]
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a checkpoint of a {kind}: {error}") from error
    prefix = "model."
    weights = {
        name.removeprefix(prefix): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    return description, weights


def load_ensemble(paths: Sequence[str | Path]) -> Forecaster:
    r"""Loads several forecasters of the same data as one that forecasts their mean.

    Args:
        paths (Sequence[str or Path]): Checkpoints or folders of runs, see
            :func:`load_forecaster`. Of a single one that forecaster itself is returned.
    """
    forecasters = [load_forecaster(path) for path in paths]
    first = forecasters[0]
    for path, other in zip(paths, forecasters):
        facts = sorted(key for key in first.facts if other.facts.get(key) != first.facts[key])
        if other.protocol != first.protocol or facts:
            different = ["protocol"] * (other.protocol != first.protocol) + facts
            raise ValueError(
                f"{path} and {paths[0]} were trained on different data and make no ensemble: they "
                f"differ in {', '.join(different)}"
            )
    if len(forecasters) == 1:
        return first
    return first._replace(model=Ensemble([each.model for each in forecasters]).eval())


def check_fits(forecaster: Forecaster, graph: TemporalGraph) -> None:
    r"""Raises a :class:`ValueError` that names all differences between the data that a forecaster
    was trained on and :obj:`graph` which keep it from working there."""
    different = differences(forecaster, graph)
    if different:
        raise ValueError("the checkpoint does not fit the data: " + "; ".join(different))


def differences(forecaster: Forecaster, graph: TemporalGraph) -> list[str]:
    r"""Lists what keeps a forecaster from working on :obj:`graph`."""
    model, protocol, facts = forecaster
    found = []

    channels = graph.x.size(-1)
    if channels != len(facts["channels"]):
        found.append(
            f"channels: trained on {len(facts['channels'])} ({', '.join(facts['channels'])}), "
            f"given {channels} ({', '.join(graph.channel_names)})"
        )
    if getattr(model, "num_nodes", None) is not None:
        found += _different_nodes(facts["node_ids"], graph.node_id)
    if graph.num_steps < protocol.window:
        found.append(f"window: reads {protocol.window} steps, given {graph.num_steps}")
    steps_per_day = getattr(model, "steps_per_day", None)
    if steps_per_day not in (None, graph.steps_per_day):
        given = graph.steps_per_day or "none (no timestamps, or no whole number)"
        found.append(f"steps per day: trained on {steps_per_day}, given {given}")
    if _edge_features(graph) != facts["edge_features"]:
        found.append(
            f"features of an edge: trained on {facts['edge_features'] or 'none'}, "
            f"given {_edge_features(graph) or 'none'}"
        )
    return found


def _edge_features(graph: TemporalGraph) -> int | None:
    return None if graph.edge_attr is None else graph.edge_attr.size(-1)


def _different_nodes(trained: list[str], given: list[str]) -> list[str]:
    if len(trained) != len(given):
        return [f"nodes: trained on {len(trained)} with an embedding each, given {len(given)}"]
    for position, (before, now) in enumerate(zip(trained, given)):
        if before != now:
            return [f"nodes: node {position} was {before!r} in training, given {now!r}"]
    return []


def _build(description: Mapping[str, Any], path: Path) -> nn.Module:
    classes = {model.__name__: model for model in MODELS.values()}
    name = description["class"]
    if name not in classes:
        raise ValueError(
            f"{path} holds a {name}; known are {', '.join(classes)}. "
            f"Build it and pass it: load_forecaster(path, model=...)"
        )
    if description["arguments"] is None:
        raise ValueError(
            f"{path} holds a {name} that was built from modules. "
            f"Build it the same way and pass it: load_forecaster(path, model=...)"
        )
    return classes[name](**description["arguments"])


def is_plain(value: Any) -> bool:
    r"""Returns whether a value can be written into a checkpoint and read back safely."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
