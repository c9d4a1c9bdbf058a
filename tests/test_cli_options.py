from pathlib import Path

import pytest

from pyg_stmamba.cli_options import (
    add_options_of,
    choose,
    configured_model,
    fail,
    make_parser,
    model_by_name,
    plain,
    value_of,
    with_config_of_resumed_run,
)


def cook(dish: str, minutes: float = 5.0, *, hot_plate: bool = True) -> None:
    r"""Cooks a dish.

    Args:
        dish (str): What to cook.
        minutes (float, optional): How long. (default: :obj:`5.0`)
        hot_plate (bool, optional): Whether the plate is hot. (default: :obj:`True`)
    """


def test_options_are_those_of_a_function(capsys):
    parser = make_parser("cook", cook)
    add_options_of(parser, cook, "meal.", skip={"dish"})
    given = parser.parse_args(["--meal.minutes", "3", "--meal.hot-plate=false"])
    assert (given.meal.minutes, given.meal.hot_plate) == (3.0, False)
    text = " ".join(parser.format_help().split())
    assert "Cooks a dish." in text
    assert "Whether the plate is hot." in text
    assert "dish " not in text.replace("a dish", "")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--meal.minutes", "soon"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("pyg-stmamba cook: error: ")
    assert error.count("\n") == 1


def test_what_stands_behind_an_option():
    arguments = ["--a", "1", "--b=2", "--c"]
    assert [value_of(arguments, f"--{name}") for name in "abcd"] == ["1", "2", None, None]


def test_model_is_short_for_its_name():
    given = ["--model", "x", "--model=y", "--model.channels", "3"]
    assert model_by_name(given) == ["--model.name", "x", "--model.name=y", *given[3:]]


def test_configured_model(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("model:\n  name: st-mamba\n")
    assert configured_model(["--config", str(file)]) == "st-mamba"
    assert configured_model([]) is None
    file.write_text("model: [")
    with pytest.raises(ValueError, match="is not YAML"):
        configured_model(["--config", str(file)])


def test_a_resumed_run_brings_its_options(tmp_path: Path):
    given = ["--resume", str(tmp_path), "--max-epochs", "3"]
    with pytest.raises(ValueError, match=r"config\.yaml, so no run to go on with"):
        with_config_of_resumed_run(given)
    (tmp_path / "config.yaml").touch()
    assert with_config_of_resumed_run(given)[2:] == given
    assert with_config_of_resumed_run(["--max-epochs", "3"]) == ["--max-epochs", "3"]


def test_choices_are_listed():
    assert choose("colour", "red", {"red": 1}) == 1
    with pytest.raises(ValueError, match="unknown colour 'blue'; choose from red, green"):
        choose("colour", "blue", {"red": 1, "green": 2})


def test_plain():
    value = {"a": Path("b"), "c": [(1, None)], "d": 0}
    assert plain(value, without=["d"]) == {"a": "b", "c": [[1, None]]}


def test_failure_is_one_line_and_exit_code_two(capsys):
    with pytest.raises(SystemExit) as end:
        fail("no", "train")
    assert end.value.code == 2
    assert capsys.readouterr().err == "pyg-stmamba train: error: no\n"
