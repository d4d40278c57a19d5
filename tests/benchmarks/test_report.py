from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import report
from benchmarks.serving.__main__ import parse_arguments
from benchmarks.serving.rows import shown

ROOT = Path(__file__).parents[2]


def load(peer: str, engine: str, rate: float, connections: int = 64) -> dict[str, Any]:
    return {
        "round": 0,
        "peer": peer,
        "engine": engine,
        "workers": 2,
        "picture": "256",
        "form": True,
        "connections": connections,
        "requests_per_s": rate,
        "p50_ms": 10.0,
        "p99_ms": 20.0,
        "p999_ms": 30.0,
        "cpu_ms": 2.0,
        "pss_mb": None,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    loads = [load("ours", "ours", rate) for rate in (590.0, 600.0, 900.0)]
    loads += [load("mosec", "plain", 400.0), load("mosec", "ours", 500.0)]
    return {
        "complete": True,
        "date": "2026-01-01",
        "machine": {"cores": 2, "cpu": "some"},
        "loads": loads,
        "floor": [],
        "starts": [],
        "behaviour": [],
        "ceiling": [],
        "problems": [{"who": "ray:plain:1", "what": "round 1", "problem": "it\nended"}],
    }


def test_the_table_shows_medians_the_fastest_first(results: dict[str, Any]) -> None:
    lines = report.tables(results)["Crops"].splitlines()

    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "attention-fer",
        "MOSEC, our engine",
        "MOSEC",
    ]
    assert lines[2].split("|")[3].strip() == "600"


def test_the_summary_says_machine_date_and_rounds_and_shows_all_cores_alone(
    results: dict[str, Any],
) -> None:
    results["loads"] += [load("litserve", "plain", 50.0) | {"workers": 1, "round": 2}]

    said, _, table = report.summary(results).partition("\n\n")

    assert "2 cores of some, 2026-01-01" in said
    assert "3 rounds" in said
    assert "attention-fer" in table
    assert "LitServe" not in table


def test_the_headline_is_of_our_server_with_all_cores(results: dict[str, Any]) -> None:
    results["loads"] += [load("ours", "ours", 50.0) | {"workers": 1}]

    said = report.headline(results)

    assert said == "600 crops (256 px) a second with a p99 of 20.0 ms (2 cores of some, 2026-01-01)"


def test_photographs_come_first_where_they_were_measured(results: dict[str, Any]) -> None:
    results["loads"] += [
        load(*server, rate, connections) | {"picture": picture}
        for picture, connections in (("photo", 64), ("crowd", 8))
        for server, rate in ((("ours", "ours"), 60.0), (("mosec", "plain"), 30.0))
    ]
    results["loads"].append(load("fer", "own", 45.0) | {"picture": "photo"})

    tables = report.tables(results)

    assert list(tables)[:4] == ["Photographs", "Photographs by size", "Crops", "Crops by size"]
    assert "the package fer" in tables["Photographs"]
    assert (
        "| 1024 x 768, one face, form | 4000 x 3000, twenty faces, form, 8 conn. |"
        in (tables["Photographs by size"])
    )
    assert "a JPEG of 1024 x 768, one face by multipart" in report.summary(results)
    assert report.headline(results).startswith("60.0 photographs (1024 x 768, one face) a second")
    # What has another detector is shown, and no goal.
    assert (
        "| photographs/s at 64 conn., times those of whichever peer is best there | 2.00 |"
        in (tables["Goals"])
    )


@pytest.mark.parametrize("name", ["serving.json", "zen5/serving.json", "h200/serving.json"])
def test_the_results_of_older_runs_can_still_be_shown(name: str) -> None:
    results = report.read(ROOT / "benchmarks/results" / name)

    tables = report.tables(results)

    assert {"Crops", "Crops by size", "Ceiling", "Memory and start", "Goals"} <= tables.keys()
    assert "attention-fer" in report.summary(results)


def test_goals_compare_with_the_best_peer_as_it_is_and_with_our_engine(
    results: dict[str, Any],
) -> None:
    goals = report.tables(results)["Goals"]

    assert "| 1.50 | ≥ 1.15 | yes |" in goals
    assert "| 1.20 | ≥ 1.0 | yes |" in goals


def test_the_peer_with_our_engine_is_the_one_that_is_best_as_it_is(
    results: dict[str, Any],
) -> None:
    """Not whichever gains most by our engine: that is how the goal was set."""
    results["loads"] += [load("batcher", "plain", 300.0), load("batcher", "ours", 550.0)]

    goals = report.tables(results)["Goals"]

    assert "| 1.50 | ≥ 1.15 | yes |" in goals
    assert "| 1.20 | ≥ 1.0 | yes |" in goals


def ceiling(engine: str, number: int, rate: float) -> dict[str, Any]:
    forward = {"1": 2.0, "16": 1.0, "24": 1.0 - 0.1 * number, "32": 0.9}
    decode = {"48": 0.1, "256": 0.2, "1080": 1.0, "12mp": 9.0}
    return {
        "round": number,
        "engine": engine,
        "alone": {"forward_ms": {"1": 2.0 + number}, "decode_ms": decode},
        "forward_ms": forward,
        "decode_ms": decode,
        "best_batch": 32,
        "requests_per_s": {"256": rate},
    }


def test_each_round_is_held_against_the_ceiling_of_its_own_minute(results: dict[str, Any]) -> None:
    loads = [
        load("ours", "ours", rate) | {"round": n} for n, rate in enumerate((800.0, 600.0, 9.0))
    ]
    alone = [load("ours", "ours", 1.0, 1) | {"round": n, "p50_ms": 5.0} for n in range(3)]
    results["loads"] = loads + alone
    results["ceiling"] = [
        ceiling("ours", n, rate) for n, rate in enumerate((1000.0, 700.0, 1000.0))
    ]
    results["ceiling"] += [ceiling("plain", 0, 1.0)]

    tables = report.tables(results)

    assert (
        "| crops: share of the ceiling at 64 connections | 0.80 | ≥ 0.80 | yes |" in tables["Goals"]
    )
    assert "| crops: p50 at 1 connection beyond decode + forward, ms | 1.80 |" in tables["Goals"]
    _, _, ours, plain = tables["Ceiling"].splitlines()
    cells = [cell.strip() for cell in ours.split("|")]
    assert cells[1:5] == ["ours", "2.00 ms", "24", "0.90 ms"]
    assert cells[-2] == "1 000"
    assert plain.split("|")[-2].strip() == "1.00"


def test_goodput_is_also_told_of_the_cores_that_the_generator_left(
    results: dict[str, Any],
) -> None:
    row = {"peer": "ours", "engine": "ours", "workers": 2, "what": "overload"}
    row |= {"goodput_per_s": 730.0, "capacity_per_s": 1000.0, "generator_cores": 0.4}
    row |= {"rejected_p99_ms": 20.0, "retry_after_share": 1.0, "accepted_p50_ms": 700.0}
    row |= {"accepted_p99_ms": 900.0, "well_again_s": 0.5, "statuses": {"200": 1, "503": 2}}
    results["behaviour"].append(row)

    tables = report.tables(results)

    assert "goodput as a share of capacity | 0.73 | ≥ 0.9 | **no** |" in tables["Goals"]
    assert "that the generator left | 0.91 | ≥ 0.9 | yes |" in tables["Goals"]
    assert tables["Overload"].splitlines()[2].split("|")[8].strip() == "0.40"


def test_what_could_not_be_measured_is_shown(results: dict[str, Any]) -> None:
    assert "| ray:plain:1 | round 1 | it ended |" in report.tables(results)["Problems"]


def test_tables_without_rows_are_left_out(results: dict[str, Any]) -> None:
    assert "Overload" not in report.tables(results)


def test_numbers_are_shown_with_three_digits_or_so() -> None:
    assert [shown(v) for v in (1234.5, 123.4, 12.34, 1.234, float("nan"))] == [
        "1 234",
        "123",
        "12.3",
        "1.23",
        "-",
    ]


def test_results_of_a_run_that_did_not_finish_are_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "serving.json"
    file.write_text('{"complete": false}')

    with pytest.raises(ValueError, match="not finished"):
        report.read(file)


def test_parts_can_be_chosen_on_the_command_line() -> None:
    options = parse_arguments(["--only", "floor", "--servers", "ours, mosec", "--workers", "1,2"])

    assert options.only == ["floor"]
    assert options.servers == ["ours", "mosec"]
    assert options.workers == [1, 2]
    assert options.connections == [1, 8, 64, 256]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--only", "flor", "expected throughput"), ("--pictures", "foto", "expected photo")],
)
def test_an_unknown_part_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str, said: str
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([option, value])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-bentoml.txt"])
def test_what_the_service_runs_on_is_the_same_in_the_benchmark(name: str) -> None:
    service = {"torch", "uvicorn", "starlette", "pillow", "python-multipart", "pydantic", "numpy"}
    ours = pins(ROOT / "constraints.txt")
    theirs = pins(ROOT / "benchmarks/serving" / name)

    assert {p: theirs[p] for p in service} == {p: ours[p] for p in service}


def pins(path: Path) -> dict[str, str]:
    lines = [line.split("==") for line in path.read_text().splitlines() if "==" in line]
    return {package.lower().replace("_", "-"): version for package, version in lines}
