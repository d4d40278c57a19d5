"""The section "Alerts" of docs/operations.md as a page that Prometheus shows.

An alert's `runbook_url` leads to it, so that its reader needs no copy of this repository.
"""

import re
from collections.abc import Iterator
from html import escape

SOURCE = "docs/operations.md"
SECTION = "## Alerts"
_UNKNOWN = ("|", ">", "```", "1. ", "* ", "#### ", "<")

_PAGE = """\
<!DOCTYPE html>
<!-- Written by docs/quote.py from docs/operations.md. -->
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>attention-fer: alerts</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }}
code, pre {{ background: #eee; color: #111 }}
:target {{ background: #fe9 }}
</style>
{body}
</html>
"""


def render(document: str) -> str:
    """Return the page, a template of Prometheus' that has no actions.

    Args:
        document: The text of docs/operations.md.

    Raises:
        ValueError: The section is missing, or has a block that this page cannot show.
    """
    _, found, rest = document.partition(f"\n{SECTION}\n")
    if not found:
        raise ValueError(f"{SOURCE} has no section {SECTION!r}")
    section = re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    anchors = {title.lower() for title in re.findall(r"^### (\w+)$", section, re.MULTILINE)}
    body = "\n".join(("<h1>Alerts</h1>", *_render_blocks(section, anchors)))
    # Prometheus would take two braces for an action.
    return _PAGE.format(body=body.replace("{{", "&#123;&#123;"))


def _render_blocks(section: str, anchors: set[str]) -> Iterator[str]:
    for block in re.split(r"\n{2,}", section.strip("\n")):
        listed_too_late = "\n- " in block and not block.startswith("- ")
        if block.startswith(_UNKNOWN) or listed_too_late:
            raise ValueError(f"{SECTION} of {SOURCE} has what the page cannot show: {block[:60]!r}")
        if block.startswith("### "):
            title = block.removeprefix("### ")
            yield f'<h2 id="{title.lower()}">{_render_text(title, anchors)}</h2>'
        elif block.startswith("- "):
            items = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
            listed = (f"<li>{_render_text(item, anchors)}</li>" for item in items)
            yield "\n".join(("<ul>", *listed, "</ul>"))
        elif block.startswith("    "):
            code = re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
            yield f"<pre><code>{escape(code)}</code></pre>"
        else:
            yield f"<p>{_render_text(block, anchors)}</p>"


def _render_text(text: str, anchors: set[str]) -> str:
    """Return text with its code, emphasis and links; lines are joined."""

    def link(found: re.Match[str]) -> str:
        title, anchor = found.groups()
        if anchor in anchors:
            return f'<a href="#{anchor}">{title}</a>'
        return f"{title} in {SOURCE}"

    parts = escape(" ".join(text.split())).split("`")
    for at in range(0, len(parts), 2):  # between two backticks is code
        linked = re.sub(r"\[([^]]+)\]\(#([\w-]+)\)", link, parts[at])
        parts[at] = re.sub(r"\*([^*]+)\*", r"<em>\1</em>", linked)
    parts[1::2] = [f"<code>{code}</code>" for code in parts[1::2]]
    return "".join(parts)
