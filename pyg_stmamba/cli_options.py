"""How the commands of :obj:`pyg-stmamba` read their options."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

PROGRAM = "pyg-stmamba"


def make_parser(command: str, documented: Callable) -> ArgumentParser:
    r"""Returns the parser of a command, whose errors are one line and exit code 2."""
    try:
        from jsonargparse import ArgumentParser
    except ImportError as error:
        raise ImportError(
            "the command line needs jsonargparse: pip install 'pyg-stmamba[train]'"
        ) from error

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(" ".join(message.split()), command)

    summary = inspect.getdoc(documented) or ""
    return Parser(prog=f"{PROGRAM} {command}", description=summary.partition("\n\n")[0])


def add_run_options(parser: ArgumentParser) -> None:
    r"""Adds what says which trained run to use, and on which series."""
    parser.add_argument(
        "run",
        type=Path,
        nargs="+",
        help="Folder of a run, or a checkpoint; of several, the mean of their forecasts.",
    )
    parser.add_argument(
        "--dataset", type=str | None, help="Data set or file (default: that of the run)."
    )
    for name in ("root", "adjacency", "distances"):
        parser.add_argument(f"--{name}", type=Path | None, help="As in training.")
    parser.add_argument("--batch-size", default=64, type=int, help="Windows a batch.")
    parser.add_argument("--device", default="cpu", type=str, help="cpu, cuda, cuda:1, mps.")


def add_options_of(
    parser: ArgumentParser, function: Callable, prefix: str = "", skip: set[str] | None = None
) -> None:
    r"""Adds the parameters of a function or class, with their types, defaults and docs."""
    import docstring_parser

    function = _without_given(function)
    annotated = function.__init__ if inspect.isclass(function) else function
    types = typing.get_type_hints(annotated)
    documented = docstring_parser.parse(inspect.getdoc(function) or "")
    texts = {item.arg_name: item.description or "" for item in documented.params}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in (skip or ()):
            continue
        text = texts.get(name, "").replace(":obj:", "").replace("`", "").partition("(default")[0]
        spelled = {f"--{prefix}{name.replace('_', '-')}": None, f"--{prefix}{name}": None}
        parser.add_argument(
            *spelled,
            type=types[name],
            default=parameter.default,
            help=" ".join(text.split()),
        )


def add_training_options(
    parser: ArgumentParser,
    name: str,
    models: dict[str, Any],
    function: Callable,
    *,
    of_data: set[str],
    not_options: set[str],
) -> None:
    r"""Adds where a run is written, the options of the model of that name, and those of the
    function that trains it, without what the data and the command decide."""
    parser.add_argument("--out", type=Path | None, help="Folder of the run (default: runs/...).")
    parser.add_argument("--resume", type=Path | None, help="Folder of a run to go on with.")
    parser.add_argument(
        "--model.name",
        default=name,
        type=str,
        help=f"The model, also --model: {', '.join(models)}. Its options follow.",
    )
    add_options_of(parser, models[name], "model.", skip=of_data)
    add_options_of(parser, function, skip=not_options)


def model_by_name(arguments: list[str]) -> list[str]:
    r"""Spells :obj:`--model` as :obj:`--model.name`, beside which it holds the options."""
    return [
        "--model.name" + item.removeprefix("--model")
        if item == "--model" or item.startswith("--model=")
        else item
        for item in arguments
    ]


def with_config_of_resumed_run(arguments: list[str]) -> list[str]:
    r"""Puts the options of the run that :obj:`--resume` names before those given."""
    resumed = value_of(arguments, "--resume")
    if resumed is None:
        return arguments
    config = Path(resumed) / "config.yaml"
    if not config.exists():
        raise ValueError(f"--resume {resumed}: there is no {config}, so no run to go on with")
    return ["--config", str(config), *arguments]


def configured_model(arguments: list[str]) -> str | None:
    r"""Returns the model that the file behind :obj:`--config` names."""
    return (configured(arguments).get("model") or {}).get("name")


def configured(arguments: list[str]) -> dict[str, Any]:
    r"""Returns the options in the file behind :obj:`--config`, none where none is given."""
    import yaml

    path = value_of(arguments, "--config")
    if path is None:
        return {}
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"--config {path} is not YAML: {error}") from error
    return config if isinstance(config, dict) else {}


def value_of(arguments: list[str], option: str) -> str | None:
    r"""Returns what stands behind an option, before anything is parsed."""
    for position, item in enumerate(arguments):
        if item.startswith(option + "="):
            return item.partition("=")[2]
        if item == option and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


def choose(what: str, name: str, table: dict[str, Any]) -> Any:
    r"""Looks a name up; an unknown one ends in an error that lists the choices."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(table)}")
    return table[name]


def folder_of_run(given: Namespace, dataset: str, model: str) -> Path:
    r"""Returns where a run is written: the folder of the one that goes on, or the one given, or
    one named after data, model and time."""
    if given.resume is not None and given.out is not None:
        raise ValueError(
            f"--resume {given.resume} goes on in its own folder, so --out {given.out} cannot be "
            "given with it"
        )
    if given.resume is not None or given.out is not None:
        return given.resume or given.out
    return Path("runs") / f"{Path(dataset).stem}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"


def folder_of_dataset(made: Callable) -> Path:
    r"""Where a data set lies unless :obj:`--root` says otherwise: in :obj:`datasets/` of the
    current folder if its folder is there, as in a checkout, else in the user's cache."""
    made = _without_given(made)
    # A data set, its file and its folder have one name.
    folder = made.__module__.rpartition(".")[2]
    here = Path("datasets") / folder
    if here.is_dir():
        return here
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pyg_stmamba" / folder


def _without_given(made: Callable) -> Callable:
    """What is behind a call some of whose arguments are given."""
    return made.func if isinstance(made, functools.partial) else made


def plain(value: Any, without: Sequence[str] = ()) -> Any:
    r"""Returns nested options as what YAML can hold."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in without}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def fail(message: str, command: str = "") -> NoReturn:
    r"""Ends the program with one line on standard error."""
    print(f"{PROGRAM}{' ' * bool(command)}{command}: error: {message}", file=sys.stderr)
    raise SystemExit(2)
