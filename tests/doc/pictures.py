"""Make the pictures of the README and the manual anew: ``python -m tests.doc.pictures``.

``doc/images/demo.svg`` is what ``receipt-actors demo`` prints; ``tree.svg`` the supervision tree, from its child specs.
``dashboard.png`` is made by ``python -m tests.admin.screenshots``, which needs a browser.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from .blocks import ROOT

COMMAND = "receipt-actors demo"
COLUMNS = 100
STYLES = {  # what the program says to a terminal, which ours is not
    r"━+": "rgb(249,38,114)",
    r"\bright\b": "green",
    r"^All .*": "bold green",
    r"^What .*": "bold",
    r"^ +kind of message.*|^ +reason +messages": "bold",
    r"\$ .*": "bold cyan",
}
# The template of rich without its fonts from another host.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">
{matrix}</g></g>
</svg>
"""


def demo() -> str:
    environ = {**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "receipt_actors", *COMMAND.split()[1:]]
    return subprocess.run(command, env=environ, check=True, text=True, stdout=subprocess.PIPE).stdout


def drawn(output: str) -> str:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115 # until the end
    for line in f"$ {COMMAND}\n{output}".splitlines():
        text = Text(line.rstrip())
        for pattern, style in STYLES.items():
            text.highlight_regex(pattern, style)
        console.print(text, overflow="ignore", crop=True)
    svg = console.export_svg(title=COMMAND, theme=MONOKAI, code_format=FORMAT, unique_id="demo")
    console.file.close()
    return svg


def words_of(svg: str) -> list[str]:
    """Return what stands in a drawing, but for times and rates, and the order of reasons that are as frequent."""
    text = re.sub(r"<[^>]+>", " ", svg.partition("</defs>")[2]).replace("&#160;", " ")
    text = re.sub(r"\d+ messages in .*? p99 [\d.]+ s|\d:\d\d:\d\d", "", " ".join(text.split()))
    return sorted(text.split())


def main() -> None:
    (ROOT / "doc/images/demo.svg").write_text(drawn(demo()), encoding="utf-8")
    tree = ROOT / "doc/images/tree.svg"
    subprocess.run([sys.executable, ROOT / "doc/supervision_tree.py", tree], check=True)


if __name__ == "__main__":
    main()
