"""Learning from trained networks beside the labels."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from tests.training.conftest import made_up_data, quick_recipe, teacher
from training import distil
from training.config import TrainConfig
from training.dataset import Dataset, Split
from training.distil import Panel, soften
from training.evaluate import predict
from training.machine import Machine, machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import InputSpec
from training.run import Run, fit
from training.state import ResumeError
from training.tasks import tasks, train_split
from training.validation import best_checkpoint

pytestmark = pytest.mark.cpu


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def either_cpu(cpu: Machine, request: pytest.FixtureRequest) -> Machine:
    """A CPU of either kind: one that multiplies bfloat16, and one that does not."""
    return dataclasses.replace(cpu, bfloat16=request.param)


def probabilities(teacher: Checkpoint, split: Split, here: Machine) -> torch.Tensor:
    with here.autocast():
        logits = predict(teacher.network, split.faces, InputSpec(), here, flip=True)
    return (logits / teacher.manifest.temperature).softmax(1)


def test_targets_are_the_labels_and_the_teachers_mean_blended(
    data: Dataset, either_cpu: Machine
) -> None:
    learnt = tasks(data, 0.0)
    teachers = [teacher(data.emotions, 0), teacher(data.emotions, 1, temperature=2.0)]
    split = train_split(learnt)
    before = split.targets.clone()

    softened = soften(split, learnt, teachers, 0.25, either_cpu)

    mean = (
        probabilities(teachers[0], split, either_cpu)
        + probabilities(teachers[1], split, either_cpu)
    ) / 2
    torch.testing.assert_close(softened.targets, 0.75 * before + 0.25 * mean)
    assert torch.equal(split.targets, before)
    assert softened.faces is split.faces


def test_each_labelling_has_the_teachers_of_its_emotions(
    data: Dataset, either_cpu: Machine
) -> None:
    halves = F.one_hot((data.train.labels > 2).long(), 2).float()
    second = dataclasses.replace(
        data, emotions=("narrow", "wide"), train=Split(data.train.faces, halves)
    )
    learnt = tasks(dataclasses.replace(data, second=second), 1.0)
    seven, two = teacher(data.emotions, 0), teacher(second.emotions, 1)

    targets = soften(train_split(learnt), learnt, [two, seven], 1.0, either_cpu).targets

    torch.testing.assert_close(targets[:, :7], probabilities(seven, data.train, either_cpu))
    torch.testing.assert_close(targets[:, 7:], probabilities(two, data.train, either_cpu))


def test_processes_share_the_faces(
    data: Dataset, either_cpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sums its own; what the sums of all are is asked of the process group."""
    monkeypatch.setattr(distil, "FACES_AT_ONCE", 10)
    shares: list[torch.Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", shares.append)
    learnt, teachers = tasks(data, 0.0), [teacher(data.emotions, 0)]
    for rank in (0, 1):
        here = dataclasses.replace(either_cpu, rank=rank, world=2)
        soften(train_split(learnt), learnt, teachers, 1.0, here)

    torch.testing.assert_close(
        shares[0] + shares[1], probabilities(teachers[0], data.train, either_cpu)
    )
    assert not (shares[0].any(1) & shares[1].any(1)).any()


def test_a_run_that_goes_on_does_not_ask_again(
    data: Dataset, either_cpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, teachers = tasks(data, 0.0), [teacher(data.emotions, 0)]
    asked: list[int] = []
    monkeypatch.setattr(
        distil,
        "predict",
        lambda *a, **k: asked.append(1) or predict(*a, **k),  # type: ignore[func-returns-value]
    )
    kept = tmp_path / "run" / "taught.pt"

    def targets(share: float = 0.5, by: list[Checkpoint] = teachers) -> torch.Tensor:
        return soften(train_split(learnt), learnt, by, share, either_cpu, kept).targets

    first = targets()
    assert asked
    asked.clear()
    torch.testing.assert_close(targets(), first, rtol=0, atol=0)
    assert not asked
    for other in ({"share": 0.25}, {"by": [teacher(data.emotions, 1)]}):
        asked.clear()
        assert not torch.equal(targets(**other), first)
        assert asked


@pytest.mark.parametrize(
    ("emotions", "share", "said"),
    [
        ([("happy", "sad")], 0.5, "a teacher names happy, sad; no task learnt does"),
        ([], 0.5, "no teacher names the emotions of made-up"),
        ([], 0.0, "teacher_share is 0"),
    ],
)
def test_what_does_not_fit_is_named(
    data: Dataset, cpu: Machine, emotions: list[tuple[str, ...]], share: float, said: str
) -> None:
    learnt = tasks(data, 0.0)
    teachers = [teacher(names, 0) for names in emotions]
    with pytest.raises(ValueError, match=said):
        soften(train_split(learnt), learnt, teachers, share, cpu)


def test_a_panel_blends_what_its_teachers_make_of_the_very_pictures(
    data: Dataset, either_cpu: Machine
) -> None:
    second = dataclasses.replace(data, emotions=("happy", "sad"), second=None)
    second = dataclasses.replace(
        second, train=Split(data.train.faces, data.train.targets[:, :2] * 0 + 0.5)
    )
    learnt = tasks(dataclasses.replace(data, second=second), 1.0)
    seven = [teacher(data.emotions, 0), teacher(data.emotions, 1, temperature=2.0)]
    two = teacher(second.emotions, 2)
    images, targets = torch.randn(5, 1, 48, 48), train_split(learnt).targets[:5]

    blended = Panel(learnt, [seven[0], two, seven[1]], 0.25, either_cpu).blend(images, targets)

    with torch.no_grad(), either_cpu.autocast():
        said = [
            t.network(images).logits.float().div(t.manifest.temperature).softmax(1)
            for t in (*seven, two)
        ]
    wanted = 0.75 * targets[:, :7] + 0.25 * (said[0] + said[1]) / 2
    torch.testing.assert_close(blended[:, :7], wanted)
    wanted = 0.75 * targets[:, 7:] + 0.25 * said[2]
    torch.testing.assert_close(blended[:, 7:], wanted)


def test_who_names_fewer_emotions_has_a_share_in_a_geometric_mean(
    data: Dataset, cpu: Machine
) -> None:
    learnt = tasks(data, 0.0)
    names = data.emotions
    seven, three = teacher(names, 0), teacher((names[4], names[0], names[2]), 1)
    images, targets = torch.randn(5, 1, 48, 48), train_split(learnt).targets[:5]

    said = Panel(learnt, [three, seven], 1.0, cpu, part_share=0.25).blend(images, targets)

    with torch.no_grad(), cpu.autocast():
        whole, part = (t.network(images).logits.float().softmax(1) for t in (seven, three))
    others = [1, 3, 5, 6]
    torch.testing.assert_close(said[:, others], whole[:, others])
    torch.testing.assert_close(said.sum(1), torch.ones(5))
    mixed = whole[:, [4, 0, 2]] ** 0.75 * part**0.25
    torch.testing.assert_close(said[:, [4, 0]] / said[:, [2]], mixed[:, :2] / mixed[:, [2]])


@pytest.mark.parametrize("named", [[], [("happy", "sad")]])
def test_a_panel_without_a_teacher_of_a_labelling_is_refused(
    data: Dataset, cpu: Machine, named: list[tuple[str, ...]]
) -> None:
    with pytest.raises(ValueError, match="teacher"):
        Panel(tasks(data, 0.0), [teacher(names, 0) for names in named], 0.5, cpu)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A teacher that has learnt the made-up faces."""
    data, folder = made_up_data(), tmp_path_factory.mktemp("teacher")
    before = torch.get_num_threads()
    with machine("cpu", threads=1) as here:
        fit(Run(data, dataclasses.replace(quick_recipe(), epochs=10), InputSpec(), folder, here))
    torch.set_num_threads(before)
    return load_checkpoint(best_checkpoint(folder, data))


@pytest.mark.parametrize("watch", [False, True])
def test_a_student_learns_what_only_its_teacher_knows(
    data: Dataset,
    recipe: TrainConfig,
    tmp_path: Path,
    cpu: Machine,
    known: Checkpoint,
    watch: bool,
) -> None:
    shuffled = data.train.targets[torch.randperm(len(data.train))]
    unlabelled = dataclasses.replace(data, train=Split(data.train.faces, shuffled))
    taught = dataclasses.replace(recipe, epochs=10, teacher_share=1.0, teachers_watch=watch)

    history = fit(Run(unlabelled, taught, InputSpec(), tmp_path / "s", cpu, teachers=[known]))

    assert history[-1]["validation_accuracy"] > 0.4  # one in seven by chance


def test_a_run_goes_on_with_its_own_teachers_alone(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    taught = dataclasses.replace(recipe, teacher_share=0.5)
    first, other = teacher(data.emotions, 0), teacher(data.emotions, 1)
    run = Run(data, taught, InputSpec(), tmp_path, cpu, teachers=[first])
    run.step()
    run.save()

    assert Run(data, taught, InputSpec(), tmp_path, cpu, teachers=[first]).restore()
    with pytest.raises(ResumeError, match="another set of teachers"):
        Run(data, taught, InputSpec(), tmp_path, cpu, teachers=[other]).restore()
