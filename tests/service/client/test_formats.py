from pathlib import Path

from service.client import Box, Face, Prediction
from service.client.formats import Outcome, choose_format, shown

FACE = Face(Box(3, 4, 50, 60), 0.9, "sadness", 0.7, {"sadness": 0.7})
WHOLE = Face(Box(0, 0, 9, 9), None, "happiness", 0.98765, {"happiness": 0.98765})


def answer(*faces: Face) -> Prediction:
    return Prediction(faces, 99, 88, {}, {})


def test_a_table_is_aligned() -> None:
    files = [Path("holiday/long-name.jpg"), Path("b.png"), Path("表情.png"), Path("gone.png")]
    table = choose_format("table", files)
    answers: list[Prediction | str]
    answers = [answer(FACE, FACE), answer(WHOLE), answer(), "cannot be read: No such file"]
    lines = [table.head]
    lines += [table.write(Outcome(*one)) for one in zip(files, answers, strict=True)]
    assert "\n".join(lines).splitlines() == [
        "file                   emotion    confidence  box",
        "holiday/long-name.jpg  sadness         0.700  3,4 50x60",
        "holiday/long-name.jpg  sadness         0.700  3,4 50x60",
        "b.png                  happiness       0.988",
        "表情.png               no face",
        "gone.png               cannot be read: No such file",
    ]


def test_one_long_name_does_not_widen_the_table() -> None:
    files = [Path("a.png"), Path("n" * 200)]
    table = choose_format("table", files)
    assert table.head.startswith("file   emotion")
    assert table.write(Outcome(files[1], answer())) == "n" * 200 + "  no face"


def test_nothing_that_a_terminal_would_obey() -> None:
    file = Path("two\nlines\x1b[2J\udcff.png")
    table = choose_format("table", [file])
    line = table.write(Outcome(file, "said\x07\r\nmore"))
    assert line == "two\\nlines\\x1b[2J\\udcff.png  said\\x07\\r\\nmore"
    assert shown("Grüße, 表情") == "Grüße, 表情"
