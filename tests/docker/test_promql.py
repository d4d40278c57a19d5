"""The checks of rules and dashboard are worth as much as their reading of PromQL."""

from tests.docker.promql import Selector, grouped_labels, selectors


def test_metrics_and_matchers_are_found_wherever_they_stand() -> None:
    expression = """
        histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{route=~"/p(/b)?", s!="{x}"}[5m])))
          / on (job) group_left (name) (level:b_c:rate5m offset 1h > 1e3) and c * 2 or absent(d{})
    """
    assert selectors(expression) == [
        Selector("a_bucket", (("route", "=~", "/p(/b)?"), ("s", "!=", "{x}"))),
        Selector("level:b_c:rate5m", ()),
        Selector("c", ()),
        Selector("d", ()),
    ]
    assert grouped_labels(expression) == {"job", "le", "name"}
