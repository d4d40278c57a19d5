"""A minute and a half of what `tests.service.soak` does by hand for twenty."""

import sys

import pytest

from tests.service.soak import soak


@pytest.mark.slow
def test_a_minute_of_everything(capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    report = soak(1.5, 1, lines.append)
    with capfd.disabled():
        sys.stdout.write("\n".join(["", *lines, ""]))
    assert report.complaints() == []
    assert report.answers["200"] > 100
    assert report.answers["400"] > 10
    assert report.abandoned > 10
