from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyg_stmamba import cli_mesh
from pyg_stmamba.cli_data import add_data_options, default_root, load_data
from pyg_stmamba.cli_mesh_data import is_mesh_data, is_mesh_run
from pyg_stmamba.cli_options import (
    PROGRAM,
    add_options_of,
    add_run_options,
    add_training_options,
    choose,
    configured_model,
    fail,
    folder_of_run,
    make_parser,
    model_by_name,
    plain,
    value_of,
    with_config_of_resumed_run,
)

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from pyg_stmamba.data import Protocol, TemporalGraph
    from pyg_stmamba.training import Forecaster


# Arguments of a model that the data decide.
OF_DATA = {"in_channels", "window", "horizon", "target_channels", "num_nodes", "steps_per_day"}
OF_DATA |= {"edge_dim", "out_channels"}


def main(arguments: Sequence[str] | None = None) -> None:
    r"""Runs the command line :obj:`pyg-stmamba train | compare | evaluate | predict | rollout |
    convert | simulate | benchmark | info`.

    Wrong input ends in one line on standard error and exit code 2.
    """
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
        return
    if command == "--version":
        from pyg_stmamba import __version__

        print(f"{PROGRAM} {__version__}")
        return
    if command not in COMMANDS:
        fail(f"unknown command {command!r}; choose from {', '.join(COMMANDS)}")
    try:
        COMMANDS[command](rest)
    except (ValueError, OSError, ImportError) as error:
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def train(arguments: list[str]) -> None:
    r"""Trains a forecaster, or a surrogate of flows on meshes, beside the baselines."""
    from pyg_stmamba.models import MODELS
    from pyg_stmamba.training import fit
    from pyg_stmamba.training.device import check_devices, is_main_process

    arguments = with_config_of_resumed_run(model_by_name(arguments))
    if is_mesh_data(arguments):
        cli_mesh.train(arguments)
        return
    name = value_of(arguments, "--model.name") or configured_model(arguments) or next(iter(MODELS))
    model_class = choose("model", name, MODELS)

    parser = make_parser("train", train)
    parser.add_argument("--config", action="config", help="Options in a file, as config.yaml.")
    add_data_options(parser)
    not_options = {"model", "graph", "protocol", "out", "resume", "callbacks", "config"}
    add_training_options(parser, name, MODELS, fit, of_data=OF_DATA, not_options=not_options)
    given = parser.parse_args(arguments)

    check_devices(given.accelerator, given.devices)
    config = plain(given.as_dict(), without=("config", "resume", "out"))
    options = parser.instantiate(given).as_dict()
    graph, protocol = load_data(given)
    out = folder_of_run(given, given.dataset, name)
    model = _build_model(model_class, graph, protocol, options.pop("model"), given.seed)
    names = {key for key in inspect.signature(fit).parameters if key not in not_options}
    training = {key: value for key, value in options.items() if key in names}
    try:
        result = fit(
            model,
            graph,
            protocol,
            out=out,
            resume=given.resume is not None,
            config=config,
            **training,
        )
    except KeyboardInterrupt:
        print(f"\nGo on with: {PROGRAM} train --resume {out}", file=sys.stderr)
        raise
    if not is_main_process():
        return
    _print_scores("test", result.metrics["test"], result.metrics["baselines"], graph, name)

    from pyg_stmamba.visualization import write_report

    print(f"Report: {write_report(out)}")


def compare(arguments: list[str]) -> None:
    r"""Trains STMamba with each temporal and each spatial operator; errors beside costs."""
    from pyg_stmamba import training
    from pyg_stmamba.models import STMamba
    from pyg_stmamba.training.compare import TRAINING_OPTIONS

    parser = make_parser("compare", compare)
    parser.add_argument("--config", action="config", help="Options in a file, as config.yaml.")
    add_data_options(parser)
    parser.add_argument("--out", type=Path | None, help="Folder to write (default: runs/...).")
    parser.add_argument("--resume", type=Path | None, help="Folder of a comparison to go on with.")
    not_options = {"graph", "protocol", "out", "model", "resume", "config", "training"}
    add_options_of(parser, training.compare, skip=not_options)
    add_options_of(parser, STMamba, "model.", skip={*OF_DATA, "temporal", "spatial"})
    not_ours = set(inspect.signature(training.fit).parameters) - TRAINING_OPTIONS
    add_options_of(parser, training.fit, skip=not_ours)
    given = parser.parse_args(with_config_of_resumed_run(arguments))

    options = parser.instantiate(given).as_dict()
    graph, protocol = load_data(given)
    out = folder_of_run(given, given.dataset, "compare")
    names = {*inspect.signature(training.compare).parameters, *TRAINING_OPTIONS} - not_options
    try:
        result = training.compare(
            graph,
            protocol,
            out=out,
            model=options["model"],
            resume=given.resume is not None,
            config=plain(given.as_dict(), without=("config", "resume", "out")),
            **{name: value for name, value in options.items() if name in names},
        )
    except KeyboardInterrupt:
        print(f"\nGo on with: {PROGRAM} compare --resume {out}", file=sys.stderr)
        raise

    from pyg_stmamba.visualization import write_accuracy_cost

    print(result.table)
    print(f"Table: {out / 'comparison.md'}\nPicture: {write_accuracy_cost(out)}")


def evaluate(arguments: list[str]) -> None:
    r"""Measures a trained forecaster or surrogate and the baselines on a split."""
    if _is_of_mesh_run(arguments):
        cli_mesh.evaluate(arguments)
        return
    from pyg_stmamba import training

    parser = make_parser("evaluate", evaluate)
    add_run_options(parser)
    parser.add_argument("--split", default="test", type=str, help="train, val or test.")
    parser.add_argument("--out", type=Path | None, help="Also write the errors to this .json file.")
    given = parser.parse_args(arguments)
    forecaster = _load_run(given)
    graph, _ = load_data(given)
    training.check_fits(forecaster, graph)
    result = training.evaluate(
        forecaster.model,
        graph,
        forecaster.protocol,
        split=given.split,
        batch_size=given.batch_size,
        device=given.device,
        progress=True,
    )
    name = type(forecaster.model).__name__
    _print_scores(given.split, result.test, result.baselines, graph, name)
    if given.out is not None:
        from pyg_stmamba.training.run_folder import write_json

        write_json(given.out, {given.split: result.test, "baselines": result.baselines})
        print(given.out)


def predict(arguments: list[str]) -> None:
    r"""Forecasts what follows a series; needs no targets."""
    from pyg_stmamba import training

    parser = make_parser("predict", predict)
    add_run_options(parser)
    parser.add_argument(
        "--starts",
        default="last",
        type=str,
        help="last: after the last window; all: after every window of the series.",
    )
    parser.add_argument(
        "--out", default=Path("forecasts"), type=Path, help="Files to write, without .npz and .csv."
    )
    given = parser.parse_args(arguments)
    forecaster = _load_run(given)
    graph, _ = load_data(given)
    forecasts = training.predict(
        forecaster,
        graph,
        starts=given.starts,
        batch_size=given.batch_size,
        device=given.device,
        progress=True,
    )
    for path in forecasts.save(given.out):
        print(path)


def simulate(arguments: list[str]) -> None:
    r"""Generates a built-in data set: pyg-stmamba simulate freeway, or cylinder-flow."""
    from pyg_stmamba.datasets import FreewayTraffic

    if "cylinder-flow" in arguments:
        cli_mesh.simulate([item for item in arguments if item != "cylinder-flow"])
        return
    kinds = {"freeway": FreewayTraffic}
    kind = arguments[0] if arguments and not arguments[0].startswith("-") else "freeway"
    made = choose("simulation", kind, {**kinds, "cylinder-flow": None})
    parser = make_parser(f"simulate {kind}", made)
    parser.add_argument("--root", type=Path | None, help="Folder of the data set.")
    add_options_of(parser, made, skip={"root", "transform", "pre_transform"})
    given = parser.parse_args([item for item in arguments if item != kind]).as_dict()
    root = given.pop("root") or default_root(kind)
    graph = made(root, **given)[0]
    print(f"{graph.num_nodes} nodes, {graph.num_edges} edges, {graph.num_steps} steps: {root}")


def benchmark(arguments: list[str]) -> None:
    r"""Measures the operations and the block beside what else there is."""
    from pyg_stmamba.benchmark import SETS, measure_set

    parser = make_parser("benchmark", benchmark)
    parser.add_argument("--set", default="short", type=str, help=f"One of {', '.join(SETS)}.")
    parser.add_argument("--device", default="cpu", type=str, help="cpu or cuda.")
    parser.add_argument("--repeats", default=5, type=int, help="Timed runs, after the warm-up.")
    parser.add_argument("--out", type=Path | None, help="Also write the table to this .md file.")
    given = parser.parse_args(arguments)
    report = measure_set(choose("set", given.set, SETS), given.device, given.repeats)
    print(report.text)
    if given.out is not None:
        report.write(given.out)
    if not report.agrees:
        raise SystemExit(f"{PROGRAM} benchmark: ours and a peer do not agree")


def info(arguments: list[str]) -> None:
    r"""Prints versions, devices, and which implementation of each operation runs here."""
    import torch

    from pyg_stmamba.ops.backend import implementations
    from pyg_stmamba.training.device import describe_device
    from pyg_stmamba.training.run_folder import versions

    make_parser("info", info).parse_args(arguments)
    for name, version in versions().items():
        print(f"{name:<18}{version}")
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices += [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    print("\ndevices")
    for device in devices:
        print(f"  {describe_device(device)}")
    print("\nimplementations")
    chosen = set()
    for line in implementations():
        runs = line.available and (line.op, line.device) not in chosen
        if runs:
            chosen.add((line.op, line.device))
        note = "runs" if runs else "; ".join(line.reasons) or "could run"
        print(f"  {line.op:<18}{line.device:<6}{line.name:<16}{note}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "compare": compare,
    "evaluate": evaluate,
    "predict": predict,
    "rollout": cli_mesh.rollout,
    "convert": cli_mesh.convert,
    "simulate": simulate,
    "benchmark": benchmark,
    "info": info,
}


def _build_model(
    model_class: Any, graph: TemporalGraph, protocol: Protocol, options: dict[str, Any], seed: int
) -> Any:
    import torch

    options.pop("name")
    torch.manual_seed(seed)
    return model_class(**{**model_class.data_arguments(graph, protocol), **options})


def _is_of_mesh_run(arguments: list[str]) -> bool:
    return any(is_mesh_run(item) for item in arguments if not item.startswith("-"))


def _load_run(given: Namespace) -> Forecaster:
    r"""Loads the forecaster, and takes what was not given about the data from its (first)
    run."""
    import torch
    import yaml

    from pyg_stmamba.training import load_ensemble

    device = torch.device(given.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device={given.device!r} is not there: this machine has {count} GPUs")
    forecaster = load_ensemble(given.run)
    first = given.run[0]
    folder = first if first.is_dir() else first.parent.parent
    config = folder / "config.yaml"
    if given.dataset is None and config.exists():
        saved = yaml.safe_load(config.read_text(encoding="utf-8"))
        for key in ("dataset", "root", "adjacency", "distances"):
            given[key] = given[key] or saved.get(key)
    return forecaster


def _print_scores(
    split: str, scores: dict, baselines: dict, graph: TemporalGraph, name: str
) -> None:
    from pyg_stmamba.training import score_table

    unit = f", in {graph.units[0]}" if graph.units[0] else ""
    print(f"\nErrors on the {split} set{unit}")
    print(score_table(scores, baselines, graph.step_seconds, name))


def _help() -> str:
    lines = [
        f"usage: {PROGRAM} COMMAND [OPTIONS]",
        "",
        "Forecasts series on the nodes of a graph, and flows on meshes.",
        "",
        *(f"  {name:<10}{inspect.getdoc(run)}" for name, run in COMMANDS.items()),
        "",
        f"{PROGRAM} COMMAND --help lists the options of a command.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
