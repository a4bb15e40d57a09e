"""Rows of networks as tables: Markdown, HTML and CSV. Text from outside is escaped."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence

from nasfuse.costs import show_macs
from nasfuse.summary import Row


def markdown_table(rows: Sequence[Row], links: Mapping[str, str] | None = None) -> str:
    """Rows as a Markdown table, nothing where there are none; `links` leads from a key."""
    lines = ["| trial | key | accuracy | MACs | params | thop | fusions | origin |"]
    lines += ["|---:|---|---:|---:|---:|---:|---|---|"]
    lines += [_markdown_row(one, (links or {}).get(one.key)) for one in rows]
    return "\n".join(lines) + "\n" if rows else ""


def _markdown_row(one: Row, link: str | None) -> str:
    key = f"[{plain(one.key)}]({link})" if link else plain(one.key)
    costs = [show_macs(cost) for cost in (one.macs, one.params, one.thop)]
    cells = [str(one.number), key, f"{one.accuracy:.2%}", *costs]
    return "| " + " | ".join([*cells, plain(one.fusions), plain(one.origin)]) + " |"


def plain(text: str) -> str:
    """Text that neither ends its cell nor is read as HTML or as a link."""
    escaped = html.escape(text, quote=False).replace("\n", " ")
    for sign in "|[]`*":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return escaped


def printable(text: str) -> str:
    """Text with everything that would not be seen as it is, such as line ends, written out."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def html_table(rows: Sequence[Row]) -> str:
    """Rows as an HTML table, escaped; nothing where there are none."""
    texts = ("key", "fusions", "origin")
    head = "".join(f'<th class="{"" if n in texts else "n"}">{n}</th>' for n in Row._fields)
    body = "".join(f"<tr>{''.join(map(_cell, one))}</tr>" for one in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""


def _cell(value: object) -> str:
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    text = f"{value:.2%}" if isinstance(value, float) else f"{value:,}"
    return f'<td class="n">{text}</td>'


def csv_table(rows: Sequence[Row]) -> str:
    """Rows as CSV with a header; numbers are not rounded."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    return text.getvalue()
