"""Puts results onto one HTML page that needs nothing else: the pictures are inside."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.model import Line
from benchmarks.results import rounds_of
from benchmarks.table import bars_table, case_table

__all__ = ["page", "table_of"]

_CODE: Final = re.compile("`([^`]+)`")
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h3 { font-weight: 600; font-size: 1rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 14rem; }
.met { color: #00664d; font-weight: 600; } .missed { color: #b03a00; font-weight: 600; }
img { max-width: 100%; height: auto; } pre { white-space: pre-wrap; background: #f6f6f6; padding: 1rem; }
@media (prefers-color-scheme: dark) { body { background: #fff; } }
"""


def page(lines: Sequence[Line], pictures: Iterable[Path]) -> str:
    """Gives the page."""
    drawn = {picture.stem: picture for picture in pictures}
    cases = [line for line in lines if line["kind"] == "case"]
    suites = list(dict.fromkeys((case["suite"], case["suite_title"]) for case in cases))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>bulkjobs: benchmarks</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        "<h1>bulkjobs: benchmarks</h1>",
        "<p>What these numbers cannot say stands at the head of <code>benchmarks/README.md</code>.</p>",
        "<h2>How the bars stand</h2><p>Medians of the ratios within each round.</p>",
        table_of(bars_table(cases)),
    ]
    for name, title in suites:
        parts.append(f"<h2>{html.escape(title)}</h2>")
        if name in drawn:
            parts.append(_picture(drawn.pop(name), title))
        for case in cases:
            if case["suite"] == name:
                parts.append(f"<h3>{html.escape(case['title'])}</h3>")
                parts.append(table_of(case_table(case, rounds_of(lines, case["case"]))))
    for name, picture in drawn.items():
        parts += [f"<h2>{html.escape(name.capitalize())}</h2>", _picture(picture, name)]
    parts.append("<h2>With what, and on what</h2>")
    parts += [f"<pre>{html.escape(_about(line))}</pre>" for line in lines if line["kind"] == "about"]
    return "\n".join([*parts, "</body></html>\n"])


def _picture(path: Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<img alt="{html.escape(title)}: the figures below as a picture" src="data:image/png;base64,{data}">'
    )


def _about(about: Line) -> str:
    return "\n".join(f"{key}: {value}" for key, value in about.items() if key != "kind")


def table_of(markdown: str) -> str:
    """Turns one Markdown table into HTML."""
    head, _, *rows = markdown.strip().splitlines()
    cells = [_row(head, "th"), *(_row(row, "td") for row in rows)]
    return f'<div class="wide"><table>{"".join(cells)}</table></div>'


def _row(line: str, tag: str) -> str:
    return "<tr>" + "".join(_cell(cell.strip(), tag) for cell in line.strip("|").split("|")) + "</tr>"


def _cell(text: str, tag: str) -> str:
    kind = {"met": "met", "aim met": "met", "not met": "missed"}.get(text)
    opened = tag if kind is None else f'{tag} class="{kind}"'
    inside = _CODE.sub(r"<code>\1</code>", html.escape(text))
    return f"<{opened}>{inside}</{tag}>"
