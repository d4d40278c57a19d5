from typing import Any

from training.table import tabulate


def scores(*recall: float | None) -> dict[str, Any]:
    return {
        "faces": 3,
        "accuracy": 0.5,
        "macro_f1": 0.5,
        "calibration_error": 0.1,
        "recall": recall,
    }


def test_what_no_split_has_is_left_out_and_what_one_lacks_is_blank() -> None:
    figures = {"validation": scores(0.25, None, None), "test": scores(0.5, None, 0.75)}
    lines = tabulate(figures, ("anger", "fear", "a label of one's own")).splitlines()
    head, validation, test = lines[-3:]
    assert head.split(maxsplit=2) == ["recall", "anger", "a label of one's own"]
    assert validation.split() == ["validation", "0.2500"]
    assert test.split() == ["test", "0.5000", "0.7500"]
    assert len(head) == len(validation) == len(test)
    assert lines[1].split() == ["validation", "3", "0.2500", "0.5000", "0.5000", "0.1000"]
    assert lines[2].split()[2] == "0.6250"


def test_without_validation_or_test_there_is_no_row() -> None:
    assert "validation" not in tabulate({"test": scores(1.0)}, ("anger",))
