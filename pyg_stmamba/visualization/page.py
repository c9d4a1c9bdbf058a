"""A self-contained page: tables, pictures and text in one HTML file that loads nothing else."""

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #5c5c5c;
  --line: #d9d9d9; --card: #f5f6f8; --accent: #0b63a5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181c; --faint: #a9adb5;
  --line: #3a3e46; --card: #1f2229; --accent: #7cc0f4; } }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.2rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2.4rem 0 0.8rem; }
.lead { font-size: 1.1rem; } .faint, figcaption { color: var(--faint); font-size: 0.93rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.8rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:not(:first-child).text { text-align: left; white-space: normal; }
thead th { color: var(--faint); font-weight: 600; } tr.own td { background: var(--card); }
.scores th, .scores td { padding: 0.35rem 0.55rem; } th[colspan] { text-align: center; }
td b { color: var(--accent); }
figure { margin: 1.2rem 0 2rem; } figcaption { margin-top: 0.4rem; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line);
  border-radius: 6px; }
pre { background: var(--card); padding: 0.9rem; overflow-x: auto; border-radius: 6px;
  font-size: 0.87rem; }
summary { cursor: pointer; }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """The whole file. Sections are HTML already, made by the functions below."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def folded(summary: str, text: str) -> str:
    """Text as it is, behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def picture(png: bytes, title: str, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def facts(rows: Sequence[tuple[str, object]]) -> str:
    """Two columns: what, and its value."""
    body = "".join(
        f'<tr><td>{escape(name)}</td><td class="text">{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f'<div class="scroll"><table><tbody>{body}</tbody></table></div>'


def score_table(
    groups: Mapping[str, Sequence[str]],
    rows: Mapping[str, Sequence[float]],
    formats: Sequence[str],
) -> str:
    """Scores where less is better: one row a method, the first one ours, the least of a column in
    bold; columns come in named groups."""
    best = [
        min((value for value in column if math.isfinite(value)), default=math.nan)
        for column in zip(*rows.values())
    ]
    spans = "".join(
        f'<th colspan="{len(names)}">{escape(group)}</th>' for group, names in groups.items()
    )
    names = "".join(f"<th>{escape(name)}</th>" for group in groups.values() for name in group)
    lines = []
    for number, (method, values) in enumerate(rows.items()):
        cells = ""
        for value, least, form in zip(values, best, formats):
            text = format(value, form) if math.isfinite(value) else "–"
            winner = value == least and len(rows) > 1
            cells += f"<td><b>{text}</b></td>" if winner else f"<td>{text}</td>"
        kind = ' class="own"' if number == 0 else ""
        lines.append(f"<tr{kind}><td>{escape(method)}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="scores"><thead><tr><th></th>{spans}</tr>'
        f"<tr><th></th>{names}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
