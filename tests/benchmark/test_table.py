from pyg_stmamba.benchmark import Comparison, Cost, Parity, markdown_table

GOOD = Parity({"y": 2e-7, "gradient of x": 3.21e-6}, 1e-5)
BAD = Parity({"y": 2e-4}, 1e-5)


def test_the_whole_table():
    first = Comparison(
        "scan",
        "3 rows",
        Cost(0.002, 3_000_000),
        {"loop": Cost(0.05, 12_000_000), "free": Cost(0.001, 0)},
        {"loop": GOOD, "free": GOOD, "wrong": BAD},
        {"absent": "it is not here"},
    )
    alone = Comparison("block", "N 3", Cost(1.5, 2_000), {}, {}, {"absent": "it is not here"})
    refused = Comparison("conv", "N 4", None, {}, {"wrong": BAD}, {})
    assert markdown_table([first, alone, refused]).splitlines() == [
        "| function | shape | peer | ours [ms] | peer [ms] | times faster | ours [MB] | peer [MB] "
        "| share of memory | largest error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| scan | 3 rows | loop | 2 | 50 | 25.0 | 3 | 12 | 0.25 | 3.2e-06 |",
        "| scan | 3 rows | free | 2 | 1 | 0.5 | 3 | 0 | - | 3.2e-06 |",
        "| block | N 3 | none | 1.5e+03 | - | - | 0.002 | - | - | - |",
        "",
        "- NO PARITY, no times: scan, 3 rows, wrong: y is off by 2.0e-04 > 1e-05",
        "- NO PARITY, no times: conv, N 4, wrong: y is off by 2.0e-04 > 1e-05",
        "- left out: absent (scan; block): it is not here",
    ]


def test_nothing_to_note():
    assert len(markdown_table([]).splitlines()) == 2
