"""The whole of the tiny chain, on a few hundred made-up faces."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.training.conftest import made_up
from tests.training.synthetic import face_text, write_fer2013, write_ferplus
from training.chain import Chain, ChainError, Stage, load_chain
from training.machine import Machine
from training.model.checkpoint import digest, load_checkpoint
from training.reproduce import Place, estimate, make, reproduce
from training.run import Run

NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run gets to clean up."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    rows, votes = [], []
    for usage, per_class, seed in (
        ("Training", 36, 0),
        ("PublicTest", 6, 1),
        ("PrivateTest", 6, 2),
    ):
        split = made_up(per_class, seed)
        for index, (face, label) in enumerate(zip(split.faces, split.labels.tolist(), strict=True)):
            rows.append((str(label), face_text(face.numpy()), usage))
            contempt = index % per_class == 0 and label == 0
            votes.append((usage, {"contempt" if contempt else NAMES[label]: 10}))
    csv = write_fer2013(tmp_path / "fer2013.csv", rows)
    return Place(csv, write_ferplus(tmp_path / "votes.csv", votes), tmp_path / "uncut")


@pytest.fixture
def chain() -> Chain:
    return load_chain("tiny")


def weights(chain: Chain, place: Place) -> dict[str, str]:
    exports = [stage for stage in chain.stages if stage.recipe is None]
    return {s.name: digest(load_checkpoint(place.output(s)).network) for s in exports}


def quiet(_: str) -> None: ...


@pytest.mark.slow
def test_a_chain_cut_and_resumed_ends_as_an_uncut_one_does(
    chain: Chain, place: Place, tmp_path: Path, cpu: Machine
) -> None:
    reproduce(chain, place, lambda stage: make(stage, chain, place, cpu), quiet, 1)
    expected = weights(chain, place)
    assert len(expected) == 2

    cut = Place(place.data, place.votes, tmp_path / "cut")
    cuts = {("base", 5), ("both-1", 17), ("taught", 20), ("everywhere", 3)}

    def kill(run: Run, name: str):  # type: ignore[no-untyped-def]
        def at(_: Run) -> None:
            if (name, run.progress.step) in cuts:
                cuts.remove((name, run.progress.step))
                raise Killed

        return at

    said: list[str] = []
    for left in (4, 3, 2, 1):
        assert len(cuts) == left
        with pytest.raises(Killed):
            reproduce(chain, cut, lambda s: make(s, chain, cut, cpu, kill, 0.0), said.append, 1)
    reproduce(chain, cut, lambda s: make(s, chain, cut, cpu, kill, 0.0), said.append, 1)
    assert weights(chain, cut) == expected
    begun = [line for line in said if line.endswith("begins")]
    assert len(begun) == len(chain.stages) + 4  # nothing that was done began again

    voted = load_checkpoint(place.output(chain.stages[-1])).manifest
    assert voted.prior is not None
    assert set(voted.temperatures) == {"uniform", "balanced", "training"}
    assert voted.provenance["recipe"]["label_share"] == 0.3

    (cut.folder / "both-0" / "best.safetensors").write_bytes(b"other")
    (cut.folder / "everywhere.json").unlink()
    with pytest.raises(ChainError, match="taught was begun with other settings or inputs"):
        make(next(s for s in chain.stages if s.name == "taught"), chain, cut, cpu)


def test_stages_that_need_no_other_are_made_at_once(chain: Chain, place: Place) -> None:
    """`both-0` and `both-1` wait for each other: made one after the other they would never end."""
    together = threading.Barrier(2, timeout=60)
    made: list[str] = []

    def do(stage: Stage) -> None:
        assert set(stage.needs) <= set(made), stage.name
        if stage.name.startswith("both"):
            together.wait()
        made.append(stage.name)

    reproduce(chain, place, do, quiet, 2)
    assert sorted(made) == sorted(stage.name for stage in chain.stages)


def test_a_stage_that_fails_ends_the_chain_and_is_named(chain: Chain, place: Place) -> None:
    def do(stage: Stage) -> None:
        raise ChainError(f"{stage.name} failed")

    with pytest.raises(ChainError, match="base failed"):
        reproduce(chain, place, do, quiet, 2)


def test_a_chain_that_learns_votes_needs_them(chain: Chain, place: Place, cpu: Machine) -> None:
    without = Place(place.data, None, place.folder)
    with pytest.raises(ChainError, match="both-0 learns FER"):
        make(next(s for s in chain.stages if s.name == "both-0"), chain, without, cpu)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_side_by_side_stopped_and_resumed(chain: Chain, place: Place, cpu: Machine) -> None:
    """As a user has it: processes for the stages, SIGINT once some runs have begun."""
    command = [
        sys.executable, "-m", "training", "reproduce", "tiny", "--data", str(place.data),
        "--votes", str(place.votes), "--folder", str(place.folder), "--device", "cpu",
        "--threads", "1", "--jobs", "2",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "both-1 begins" in line:
                first.send_signal(signal.SIGINT)
                break
        said = first.stderr.read()
    assert first.returncode == 130
    assert "the same command resumes" in said
    assert "Traceback" not in said
    subprocess.run(command, cwd=ROOT, check=True, timeout=600)
    parallel = weights(chain, place)

    alone = Place(place.data, place.votes, place.folder.with_name("alone"))
    reproduce(chain, alone, lambda stage: make(stage, chain, alone, cpu), quiet, 1)
    assert weights(chain, alone) == parallel


def test_time_is_estimated_of_every_run(chain: Chain, place: Place, cpu: Machine) -> None:
    seconds = estimate(chain, place, cpu, steps=1)
    assert set(seconds) == {stage.name for stage in chain.stages if stage.recipe}
    assert all(value > 0 for value in seconds.values())
    assert not place.folder.exists()
