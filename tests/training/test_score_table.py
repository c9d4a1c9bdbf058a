from pyg_stmamba.training import score_table


def scores(value: float) -> dict:
    score = {"mae": value, "rmse": 2 * value, "mape": value / 100}
    return {"horizons": {"3": score, "12": {**score, "mae": 9.0}}, "average": score}


def test_a_line_for_each_forecast_and_columns_under_their_titles():
    text = score_table(scores(1.0), {"last_value": scores(2.5)}, 300, "st-mamba")
    lines = text.splitlines()
    assert [line.split() for line in lines] == [
        ["15", "min", "60", "min", "average"],
        ["MAE", "RMSE", "MAPE"] * 3,
        [
            "st-mamba",
            "1.000",
            "2.000",
            "1.00%",
            "9.000",
            "2.000",
            "1.00%",
            "1.000",
            "2.000",
            "1.00%",
        ],
        ["last", "value", "2.500", "5.000", "2.50%", "9.000", "5.000"]
        + ["2.50%", "2.500", "5.000", "2.50%"],
    ]
    assert len({len(line) for line in lines}) == 1
    for title, score in (("15 min", "1.00%"), ("60 min", "1.00%")):
        end = lines[0].index(title) + len(title)
        assert lines[2][:end].endswith(score)
        assert lines[1][:end].endswith("MAPE")


def test_leads_are_told_in_minutes_hours_or_steps():
    assert "6 h" in score_table(scores(1), {}, 7200)
    assert "24 h" in score_table(scores(1), {}, 7200)
    assert "step 3" in score_table(scores(1), {})


def test_huge_errors_stay_apart():
    line = score_table(scores(1e6), {}).splitlines()[2]
    assert line.split()[1:4] == ["1000000.000", "2000000.000", "1000000.00%"]
