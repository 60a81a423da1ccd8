"""An HTML page without outside resources: its frame, and tables."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib.resources import files

__all__ = ["html_page", "html_table"]


def html_page(title: str, body: Iterable[str]) -> str:
    """A whole page; ``body`` is HTML."""
    css = files("rheobase.experiments").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of plain text that scrolls by itself where it is too wide."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    cells = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    lines = "\n".join(f"<tr>{row}</tr>" for row in cells)
    rows_of_all = f"<thead><tr>{top}</tr></thead>\n<tbody>{lines}</tbody>"
    return f'<div class="scroll"><table>{rows_of_all}</table></div>'
