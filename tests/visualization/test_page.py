import base64
from html.parser import HTMLParser
from math import inf, nan

from pyg_stmamba.visualization.page import (
    bullets,
    facts,
    folded,
    heading,
    page,
    paragraph,
    picture,
    score_table,
)

EVIL = '<script>alert("1")</script> & more'


class Collector(HTMLParser):
    """Tags, attributes and text as a browser would read them; refuses tags left open."""

    VOID = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.bold: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "b":
            self.bold.append(data)


def read(html: str) -> Collector:
    collector = Collector()
    collector.feed(html)
    collector.close()
    assert collector.open == []
    return collector


def test_every_text_is_escaped() -> None:
    parts = [
        heading(EVIL),
        paragraph(EVIL),
        paragraph(EVIL, "lead"),
        bullets([EVIL]),
        folded(EVIL, EVIL),
        picture(b"png", EVIL, EVIL),
        facts([(EVIL, EVIL)]),
        score_table({EVIL: [EVIL]}, {EVIL: [1.0]}, [".1f"]),
    ]
    for part in [*parts, page(EVIL, parts)]:
        content = read(part)
        assert "script" not in content.tags
        assert any(EVIL in text for text in content.text)


def test_pictures_are_inside() -> None:
    content = read(picture(b"some bytes", "a title", "a caption"))
    (source,) = content.sources
    prefix = "data:image/png;base64,"
    assert source.startswith(prefix)
    assert base64.b64decode(source[len(prefix) :]) == b"some bytes"


def test_the_least_of_each_column_is_bold() -> None:
    rows = {
        "model": [1.0, 0.5, nan, 2.0],
        "naive": [2.0, 0.25, nan, 2.0],
        "old": [3.0, inf, nan, 4.0],
    }
    table = score_table(
        {"near": ["MAE", "MAPE"], "far": ["MAE", "RMSE"]}, rows, [".3f", ".2%", ".3f", ".1f"]
    )
    content = read(table)
    assert content.bold == ["1.000", "2.0", "25.00%", "2.0"]
    assert content.text.count("–") == 4
    assert table.count('<th colspan="2">') == 2


def test_a_single_method_has_nothing_to_beat() -> None:
    assert read(score_table({"": ["MAE"]}, {"model": [1.0]}, [".1f"])).bold == []


def test_the_page_reads_in_light_and_dark() -> None:
    html = page("title", [])
    assert html.startswith("<!DOCTYPE html>")
    assert "color-scheme: light dark" in html
    assert "prefers-color-scheme: dark" in html
    assert "http" not in html
    assert "url(" not in html
