from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from pyg_stmamba.data import Protocol, TemporalGraph
from pyg_stmamba.data.in_processes import in_processes
from pyg_stmamba.data.whole_file import written_whole
from pyg_stmamba.models import STMamba

from .cost import training_step
from .fit import fit
from .forecast_data import windows_of
from .run_folder import RunFolder

# With equal time no number of epochs ends a training.
ENDLESS = 100_000


class OperatorRun(NamedTuple):
    r"""One training of a comparison.

    Args:
        temporal (str): Name of the operator over time, or :obj:`"none"`.
        spatial (str): Name of the operator over the nodes, or :obj:`"none"`.
        seed (int): Seed of weights, order and dropout.
        path (Path): Folder of the run.
    """

    temporal: str
    spatial: str
    seed: int
    path: Path

    @property
    def is_finished(self) -> bool:
        return RunFolder(self.path).metrics.exists()

    @property
    def failure(self) -> str | None:
        r"""Why the run has no result, if it has none."""
        if self.is_finished:
            return None
        file = self.path / "error.txt"
        return file.read_text(encoding="utf-8").strip() if file.exists() else "not trained"

    def fail(self, reason: str) -> None:
        with written_whole(self.path / "error.txt") as file:
            file.write_text(" ".join(reason.split()) + "\n", encoding="utf-8")


class Recipe(NamedTuple):
    r"""What all trainings of a comparison have in common.

    Args:
        graph (TemporalGraph): The series.
        protocol (Protocol): Lengths of windows, splits, target channels.
        model (Mapping[str, Any]): Arguments of :class:`~pyg_stmamba.models.STMamba`.
        training (Mapping[str, Any]): Arguments of :func:`fit`.
        minutes (float, optional): Training time of each, or :obj:`None`.
        max_epochs (int, optional): Epochs of each, where time does not end it.
        resume (bool): Whether runs that were begun go on.
        data_options (Mapping[str, Any]): What :obj:`config.yaml` of each run shall say of the
            data.
    """

    graph: TemporalGraph
    protocol: Protocol
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    minutes: float | None
    max_epochs: int | None
    resume: bool
    data_options: Mapping[str, Any]


def train_runs(
    recipe: Recipe, runs: Sequence[OperatorRun], workers: int = 1, progress: bool = True
) -> None:
    r"""Trains what is not finished yet; one that fails leaves its reason in :obj:`error.txt`.

    Args:
        recipe (Recipe): What they have in common.
        runs (Sequence[OperatorRun]): The trainings.
        workers (int, optional): How many run at the same time, each in a process of its own if
            they are several. (default: :obj:`1`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`True`)
    """
    waiting = [run for run in runs if not (recipe.resume and run.is_finished)]
    done = len(runs) - len(waiting)
    with tqdm(total=len(runs), initial=done, unit="run", disable=not progress) as bar:
        for run in _trained(recipe, waiting, workers):
            bar.set_postfix_str(f"{run.temporal} + {run.spatial}", refresh=False)
            bar.update()


@contextmanager
def one_thread() -> Iterator[None]:
    r"""Computes on one thread, so that minutes and costs mean the same on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _trained(recipe: Recipe, runs: Sequence[OperatorRun], workers: int) -> Iterator[OperatorRun]:
    if workers == 1:
        for run in runs:
            _train(recipe, run)
            yield run
        return
    # Pickled here: torch would put the tensors into shared memory, of which containers have little.
    pickled = pickle.dumps(recipe)
    jobs = [(pickled, run) for run in runs]
    for number, exit_code in in_processes(_train_pickled, jobs, workers):
        if exit_code:
            runs[number].fail(f"its process ended with exit code {exit_code}")
        yield runs[number]


def _train_pickled(recipe: bytes, run: OperatorRun) -> None:
    _train(pickle.loads(recipe), run)


def _train(recipe: Recipe, run: OperatorRun) -> None:
    operators: dict[str, Any] = {
        kind: None if name == "none" else name
        for kind, name in (("temporal", run.temporal), ("spatial", run.spatial))
    }
    options = {
        **recipe.training,
        "max_epochs": ENDLESS if recipe.max_epochs is None else recipe.max_epochs,
        "max_time": recipe.minutes,
        # Each shall use its whole budget.
        "patience": None,
        "seed": run.seed,
        "accelerator": "cpu",
        "devices": 1,
    }
    of_data = STMamba.data_arguments(recipe.graph, recipe.protocol)
    own = {name: value for name, value in recipe.model.items() if name not in of_data}
    described = {"name": "st-mamba", **own, **operators}
    try:
        (run.path / "error.txt").unlink(missing_ok=True)
        with one_thread(), torch.random.fork_rng(devices=()):
            torch.manual_seed(run.seed)
            model = STMamba(**recipe.model, **operators)
            # Kernels are compiled at their first call, which shall not count as training.
            train = windows_of(recipe.graph, recipe.protocol)["train"]
            training_step(model, train.batch([0]))()
            fit(
                model,
                recipe.graph,
                recipe.protocol,
                out=run.path,
                baselines=False,
                resume=recipe.resume,
                progress=False,
                config={**recipe.data_options, "model": described, **options},
                **options,
            )
    except Exception as error:
        run.fail(f"{type(error).__name__}: {error}")
