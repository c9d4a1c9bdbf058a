from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.data.whole_file import written_whole
from pyg_stmamba.models import STMamba
from pyg_stmamba.nn.spatial.resolver import SPATIAL_OPERATORS
from pyg_stmamba.nn.temporal.resolver import TEMPORAL_OPERATORS

from .checkpoint import load_forecaster
from .comparison_table import as_csv, as_markdown, comparison_rows
from .cost import measure_costs
from .device import describe_device
from .evaluate import evaluate
from .fit import fit
from .forecast_data import windows_of
from .operator_runs import OperatorRun, Recipe, one_thread, train_runs
from .run_folder import RunFolder, versions, write_json

_DECIDED_HERE = {"model", "graph", "protocol", "out", "max_epochs", "max_time", "patience", "seed"}
_DECIDED_HERE |= {"accelerator", "devices", "baselines", "resume", "progress", "callbacks"}
TRAINING_OPTIONS = set(inspect.signature(fit).parameters) - _DECIDED_HERE - {"config", "batch_size"}
MODEL_OPTIONS = set(inspect.signature(STMamba).parameters) - {"temporal", "spatial"}


class Comparison(NamedTuple):
    r"""What :func:`compare` returns.

    Args:
        results (dict): The content of :obj:`comparison.json`.
        table (str): The content of :obj:`comparison.md`.
        folder (Path): Where it was written.
    """

    results: dict[str, Any]
    table: str
    folder: Path


def compare(
    graph: TemporalGraph,
    protocol: Protocol = Protocol(),  # noqa: B008
    *,
    out: str | Path,
    temporal: Sequence[str | None] | None = None,
    spatial: Sequence[str | None] | None = None,
    pairs: Literal["grid", "cross"] = "grid",
    minutes: float | None = None,
    max_epochs: int | None = None,
    batch_size: int = 64,
    seeds: Sequence[int] = (0,),
    workers: int = 1,
    repeats: int = 5,
    model: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
    config: Mapping[str, Any] | None = None,
    **training: Any,
) -> Comparison:
    r"""Trains :class:`~pyg_stmamba.models.STMamba` with each temporal and each spatial operator,
    the same in all else, and writes their errors beside what they cost.

    .. code-block:: python

        compared = compare(graph, protocol, out="runs/compare", minutes=90, workers=2,
                           model={"channels": 32, "num_layers": 1}, learning_rate=4e-3)
        print(compared.table)

    Each combination is a run of :func:`fit` in a folder of its own, :obj:`out/mamba-gat`, on one
    thread of the CPU. One that fails is noted with its reason, and the others go on. Costs are
    measured when all trainings are over, see :func:`~pyg_stmamba.training.cost.measure_costs`.
    Features of edges are seen by those operators that can see them.

    Args:
        graph (TemporalGraph): The series.
        protocol (Protocol, optional): Lengths of windows, splits, target channels.
        out (str or Path): Folder of the comparison, which gets :obj:`comparison.json`,
            :obj:`comparison.md` and :obj:`comparison.csv`.
        temporal (Sequence[str], optional): Names of temporal operators; :obj:`"none"` leaves the
            phase over time out. (default: :obj:`None`, all operators)
        spatial (Sequence[str], optional): Names of spatial operators; :obj:`"none"` leaves the
            phase over nodes out. (default: :obj:`None`, all operators)
        pairs (str, optional): :obj:`"grid"` trains each temporal with each spatial operator,
            :obj:`"cross"` each temporal one with :obj:`"gat"` and each spatial one with
            :obj:`"mamba"`. (default: :obj:`"grid"`)
        minutes (float, optional): Minutes of training of all together, each on one thread, shared
            equally; costs and test errors come on top. (default: :obj:`None`)
        max_epochs (int, optional): Epochs of each, instead of :obj:`minutes`.
            (default: :obj:`None`)
        batch_size (int, optional): Windows a batch, in training and where costs are measured.
            (default: :obj:`64`)
        seeds (Sequence[int], optional): Seeds with which each combination is trained; errors are
            means over them. (default: :obj:`(0, )`)
        workers (int, optional): How many are trained at the same time, each in a process of its
            own if they are several; a script then needs :obj:`if __name__ == "__main__":`.
            (default: :obj:`1`)
        repeats (int, optional): Rounds in which costs are measured. (default: :obj:`5`)
        model (Mapping[str, Any], optional): Further arguments of
            :class:`~pyg_stmamba.models.STMamba`. (default: :obj:`None`)
        resume (bool, optional): Whether to go on with the comparison in :obj:`out`: what is
            finished is not trained again. (default: :obj:`False`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
        config (Mapping[str, Any], optional): What :obj:`config.yaml` shall say.
            (default: :obj:`None`, no such file)
        **training (optional): Further arguments of :func:`fit`, as in :obj:`learning_rate`.

    Raises:
        ValueError: If an operator or an option is unknown, before anything is trained; or if
            every training fails.
    """
    combinations = _combinations(temporal, spatial, pairs)
    _check_names("model option", model or {}, MODEL_OPTIONS)
    _check_names("training option", training, TRAINING_OPTIONS)
    for name, count in (("workers", workers), ("repeats", repeats), ("seeds", len(seeds))):
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1")
    number = len(combinations) * len(seeds)
    recipe = Recipe(
        graph,
        protocol,
        {**STMamba.data_arguments(graph, protocol), **(model or {})},
        {"batch_size": batch_size, **training},
        _share(minutes, max_epochs, number),
        max_epochs,
        resume,
        _data_options(config or {}),
    )
    out = Path(out)
    settings = _settings(recipe, seeds)
    _begin(out, settings, resume)
    if config is not None:
        RunFolder(out).write_config(config)
    runs = [
        OperatorRun(*pair, seed, out / _folder(pair, seed, seeds))
        for pair in combinations
        for seed in seeds
    ]
    train_runs(recipe, runs, workers, progress)

    finished = [run for run in runs if run.is_finished]
    if not finished:
        raise ValueError(f"every training failed, the first one with {runs[0].failure}")
    windows = windows_of(graph, protocol)
    batch = windows["train"].batch(torch.arange(min(batch_size, len(windows["train"]))))
    measured: dict[tuple[str, str], OperatorRun] = {}
    for run in finished:
        # One model for each combination will do: the seed changes no cost.
        measured.setdefault((run.temporal, run.spatial), run)
    with one_thread(), torch.random.fork_rng(devices=()):
        models = [load_forecaster(run.path).model for run in measured.values()]
        costs = dict(zip(measured, measure_costs(models, batch, repeats, progress)))
        evaluation = evaluate(models[0], graph, protocol, batch_size=batch_size, progress=progress)
        device = describe_device(torch.device("cpu"))
    results = {
        "settings": settings,
        "combinations": comparison_rows(finished, costs),
        "failures": {
            run.path.relative_to(out).as_posix(): run.failure for run in runs if run.failure
        },
        "baselines": evaluation.baselines,
        "windows": evaluation.windows,
        "step_seconds": graph.step_seconds,
        "unit": graph.units[protocol.target_channels[0]],
        "device": device,
        "versions": versions(),
    }
    table = as_markdown(results)
    write_json(out / "comparison.json", results)
    for name, text in (("comparison.md", table), ("comparison.csv", as_csv(results))):
        with written_whole(out / name) as path:
            path.write_text(text, encoding="utf-8")
    return Comparison(results, table, out)


def _combinations(
    temporal: Sequence[str | None] | None, spatial: Sequence[str | None] | None, pairs: str
) -> list[tuple[str, str]]:
    times = _operators("temporal", temporal, TEMPORAL_OPERATORS)
    places = _operators("spatial", spatial, SPATIAL_OPERATORS)
    if pairs == "grid":
        return [(time, place) for time in times for place in places]
    if pairs != "cross":
        raise ValueError(f"pairs={pairs!r} is unknown; choose from 'grid', 'cross'")
    default = inspect.signature(STMamba).parameters
    with_default = [(time, default["spatial"].default) for time in times]
    with_default += [(default["temporal"].default, place) for place in places]
    return list(dict.fromkeys(with_default))


def _operators(kind: str, given: Sequence[str | None] | None, table: Collection[str]) -> list[str]:
    if given is None:
        return list(table)
    names = ["none" if name is None else name for name in given]
    for name in names:
        if name not in (*table, "none"):
            choices = ", ".join([*map(repr, table), "'none'"])
            raise ValueError(f"unknown {kind} operator {name!r}; choose from {choices}")
    if not names:
        raise ValueError(f"{kind}=[] names no operator; None compares all")
    return list(dict.fromkeys(names))


def _check_names(what: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(sorted(known))}")


def _share(minutes: float | None, max_epochs: int | None, number: int) -> float | None:
    r"""The minutes of each training."""
    if (minutes is None) == (max_epochs is None):
        raise ValueError(
            f"got minutes={minutes} and max_epochs={max_epochs}; give one of them, minutes for "
            "equal time or max_epochs for equal epochs"
        )
    if max_epochs is not None:
        if max_epochs < 1:
            raise ValueError(f"max_epochs={max_epochs} must be at least 1")
        return None
    if minutes is None or minutes <= 0:
        raise ValueError(f"minutes={minutes} must be above 0")
    return minutes / number


def _data_options(config: Mapping[str, Any]) -> dict[str, Any]:
    r"""What a configuration of the command line says of the data, not of the comparison."""
    own = {*inspect.signature(compare).parameters, *TRAINING_OPTIONS}
    return {name: value for name, value in config.items() if name not in own}


def _settings(recipe: Recipe, seeds: Sequence[int]) -> dict[str, Any]:
    r"""What must be the same for all trainings, in whichever sitting."""
    settings = {
        "model": dict(recipe.model),
        "training": dict(recipe.training),
        "minutes_each": recipe.minutes,
        "max_epochs": recipe.max_epochs,
        "seeds": list(seeds),
        "protocol": recipe.protocol._asdict(),
        "steps": recipe.graph.num_steps,
    }
    return json.loads(json.dumps(settings))


def _begin(out: Path, settings: Mapping[str, Any], resume: bool) -> None:
    file = out / "comparison.json"
    if not file.exists():
        write_json(file, {"settings": settings})
        return
    if not resume:
        raise ValueError(f"{out} holds a comparison already; resume it, or choose another folder")
    before = json.loads(file.read_text(encoding="utf-8"))["settings"]
    changed = [
        f"{name} was {before.get(name)}, now it is {value}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise ValueError(f"{out} cannot be resumed with other settings: {'; '.join(changed)}")


def _folder(pair: tuple[str, str], seed: int, seeds: Sequence[int]) -> str:
    name = "-".join(pair)
    return name if len(seeds) == 1 else f"{name}/seed-{seed}"
