"""Tests of `docs.runbook`: the page of the alerts that Prometheus shows."""

from html.parser import HTMLParser

import pytest

from docs.runbook import render

DOCUMENT = """# Operations

## Scaling

Not shown.

## Alerts

Of all.

### FerOne

A paragraph that is
two lines, with `a < b`, *Panel* and [FerTwo](#fertwo), and [Scaling](#scaling).

- one, of
  two lines
- `{{ two }}` & more

    curl -s "a" | b
      indented

### FerTwo

Last.

## After

Not shown.
"""


class Text(HTMLParser):
    """Gathers a page's text."""

    text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def body(document: str) -> str:
    return render(document).partition("<h1>Alerts</h1>\n")[2]


def test_the_section_becomes_a_page() -> None:
    assert body(DOCUMENT) == (
        "<p>Of all.</p>\n"
        '<h2 id="ferone">FerOne</h2>\n'
        "<p>A paragraph that is two lines, with <code>a &lt; b</code>, <em>Panel</em> and "
        '<a href="#fertwo">FerTwo</a>, and Scaling in docs/operations.md.</p>\n'
        "<ul>\n"
        "<li>one, of two lines</li>\n"
        "<li><code>&#123;&#123; two }}</code> &amp; more</li>\n"
        "</ul>\n"
        "<pre><code>curl -s &quot;a&quot; | b\n  indented</code></pre>\n"
        '<h2 id="fertwo">FerTwo</h2>\n'
        "<p>Last.</p>\n"
        "</html>\n"
    )


def test_nothing_is_an_action_of_prometheus_templates() -> None:
    assert "{{" not in render(DOCUMENT)


def test_what_is_between_the_tags_stays_as_written() -> None:
    parser = Text()
    parser.feed(body("\n## Alerts\n\n`<script>` & *<b>* `{{ x }}`\n"))
    assert parser.text.strip() == "<script> & <b> {{ x }}"


@pytest.mark.parametrize(
    "block",
    [
        *("| a | table |", "> quoted", "```\ncode\n```", "1. one", "#### Deeper", "<b>raw</b>"),
        "a paragraph\n- that becomes a list",
    ],
)
def test_what_it_cannot_show_is_refused(block: str) -> None:
    with pytest.raises(ValueError, match="cannot show"):
        render(f"\n## Alerts\n\nText.\n\n{block}\n")


def test_a_document_without_the_section_is_refused() -> None:
    with pytest.raises(ValueError, match="no section '## Alerts'"):
        render("# Operations\n")
