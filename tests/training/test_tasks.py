import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from training.config import TrainConfig
from training.dataset import Dataset, Split
from training.evaluate import predict, score
from training.export import ExportError, export
from training.machine import Machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import InputSpec, Manifest, NetworkConfig
from training.model.network import AttentionFER
from training.run import Run, fit
from training.state import ResumeError
from training.tasks import blended, loss, network_of, prior, start_from, tasks, train_split
from training.validation import BEST_FILE, best_checkpoint

WIDE = ("narrow", "wide")


def halved(split: Split) -> Split:
    """The same faces, told apart by whether their stripes are narrow or wide."""
    return Split(split.faces, F.one_hot((split.labels > 2).long(), 2).float())


@pytest.fixture
def both(data: Dataset) -> Dataset:
    second = dataclasses.replace(
        data,
        name="stripes",
        emotions=WIDE,
        train=halved(data.train),
        validation=halved(data.validation),
        test=halved(data.test),
    )
    return dataclasses.replace(data, second=second)


@pytest.fixture
def joint(recipe: TrainConfig) -> TrainConfig:
    return dataclasses.replace(recipe, second_target=0.5)


def test_logits_stand_side_by_side_and_weights_are_shares(both: Dataset) -> None:
    first, second = tasks(both, 0.5)
    assert (first.columns, second.columns) == (slice(0, 7), slice(7, 9))
    assert first.weight == pytest.approx(2 / 3)
    assert second.weight == pytest.approx(1 / 3)
    targets = train_split((first, second)).targets
    assert torch.equal(targets[:, :7], both.train.targets)
    assert torch.equal(targets[:, 7:].sum(1), torch.ones(len(targets)))


def test_one_labelling_is_the_plain_cross_entropy(data: Dataset) -> None:
    learnt = tasks(data, 0.0)
    logits, targets = torch.randn(5, 7), data.train.targets[:5]
    expected = F.cross_entropy(logits, targets, label_smoothing=0.1)
    assert torch.equal(loss(logits, targets, learnt, 0.1), expected)


def test_each_labelling_is_lost_on_its_own_columns(both: Dataset) -> None:
    learnt = tasks(both, 0.5)
    targets = train_split(learnt).targets[:5]
    logits = torch.randn(5, 9)
    expected = 2 / 3 * F.cross_entropy(logits[:, :7], targets[:, :7])
    expected += 1 / 3 * F.cross_entropy(logits[:, 7:], targets[:, 7:])
    assert torch.allclose(loss(logits, targets, learnt, 0.0), expected)


def test_a_second_labelling_must_be_there(
    data: Dataset, joint: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    with pytest.raises(ValueError, match="made-up has one task"):
        Run(data, joint, InputSpec(), tmp_path, cpu)


def test_a_run_keeps_a_checkpoint_of_each(
    both: Dataset, joint: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    assert both.second is not None
    run = Run(both, dataclasses.replace(joint, epochs=10), InputSpec(), tmp_path, cpu)
    history = fit(run)
    for data, key in ((both, "validation_accuracy"), (both.second, "second_validation_accuracy")):
        kept = load_checkpoint(best_checkpoint(tmp_path, data))
        assert kept.manifest.emotions == data.emotions
        assert kept.manifest.provenance["learnt"] == ["made-up", "stripes"]
        logits = predict(kept.network, data.validation.faces, InputSpec(), cpu)
        accuracy = score(logits, data.validation.targets).accuracy
        assert accuracy == max(entry[key] for entry in history)
    assert history[-1]["validation_accuracy"] > 0.4  # one in seven by chance
    assert history[-1]["second_validation_accuracy"] > 0.7  # four in seven by chance


def test_a_single_labelling_s_network_gives_its_logits(both: Dataset) -> None:
    network = AttentionFER(NetworkConfig(classes=9, widths=(4,), depths=(1,))).eval()
    images = torch.randn(3, 1, 48, 48)
    for task in tasks(both, 1.0):
        single = network_of(network, task)
        assert single.config.classes == len(task.data.emotions)
        expected = network(images).logits[:, task.columns]
        assert torch.allclose(single(images).logits, expected, atol=1e-6)


def test_exporting_asks_for_the_data_that_it_was_trained_on(
    both: Dataset, joint: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    assert both.second is not None
    fit(Run(both, joint, InputSpec(), tmp_path, cpu))
    out = tmp_path / "shipped.safetensors"
    done = export(load_checkpoint(best_checkpoint(tmp_path, both.second)), out, both.second, cpu)
    assert done.manifest.name == "attention-fer-stripes"
    with pytest.raises(ExportError, match="names anger"):
        export(load_checkpoint(tmp_path / BEST_FILE), out, both.second, cpu)


def trained(config: NetworkConfig, emotions: tuple[str, ...]) -> Checkpoint:
    network = AttentionFER(dataclasses.replace(config, classes=len(emotions)))
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 0.2)
    return Checkpoint(network, Manifest("start", "1", network.config, emotions))


def test_starting_takes_each_emotion_s_row_by_its_name(
    both: Dataset, joint: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    start = trained(joint.network, ("wide", "anger", "elation"))
    run = Run(both, joint, InputSpec(), tmp_path, cpu, start)
    fresh = Run(both, joint, InputSpec(), tmp_path, cpu)
    rows, given = run.network.classify.weight, start.network.classify.weight
    assert torch.equal(rows[both.emotions.index("anger")], given[1])
    assert torch.equal(rows[7 + WIDE.index("wide")], given[0])
    unknown = both.emotions.index("fear")
    assert torch.equal(rows[unknown], fresh.network.classify.weight[unknown])
    stem = start.network.state_dict()["stem.0.weight"]
    assert torch.equal(run.network.state_dict()["stem.0.weight"], stem)
    assert torch.equal(run.averaged.state_dict()["stem.0.weight"], stem)


def test_another_shape_cannot_be_started_from(both: Dataset) -> None:
    network = AttentionFER(NetworkConfig(classes=9, widths=(4,), depths=(1,)))
    other = trained(NetworkConfig(widths=(6,), depths=(1,)), ("a", "b"))
    with pytest.raises(ValueError, match="another shape"):
        start_from(network, tasks(both, 1.0), other)


def test_going_on_from_another_start_is_refused(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    Run(data, recipe, InputSpec(), tmp_path, cpu).save()
    start = trained(recipe.network, ("anger", "fear"))
    with pytest.raises(ResumeError, match="another checkpoint to start from"):
        Run(data, recipe, InputSpec(), tmp_path, cpu, start).restore()


@pytest.fixture
def alike(data: Dataset) -> Dataset:
    """A second task with fewer emotions, in another order, that calls every face happy."""
    emotions = ("neutral", "happiness")
    targets = torch.tensor([[0.0, 1.0]]).repeat(len(data.train), 1)
    split = Split(data.train.faces, targets)
    return dataclasses.replace(
        data, second=dataclasses.replace(data, name="second", emotions=emotions, train=split)
    )


def test_a_second_label_is_further_votes(alike: Dataset) -> None:
    mixed = blended(alike, 0.25)
    expected = 0.75 * alike.train.targets
    expected[:, alike.emotions.index("happiness")] += 0.25
    torch.testing.assert_close(mixed.train.targets, expected)
    torch.testing.assert_close(mixed.train.targets.sum(1), torch.ones(len(mixed.train)))
    assert torch.equal(alike.train.targets.max(1).values, torch.ones(len(alike.train)))
    assert mixed.second is None
    assert mixed.validation is alike.validation


def test_further_votes_need_a_second_label(data: Dataset) -> None:
    with pytest.raises(ValueError, match=r"label_share is 0\.25, but made-up has one task"):
        blended(data, 0.25)


def skewed(data: Dataset) -> Dataset:
    """Three quarters of the training faces are called neutral."""
    chosen = torch.arange(len(data.train)) % 4 > 0
    targets = data.train.targets.clone()
    targets[chosen] = F.one_hot(torch.tensor(6), 7).float()
    return dataclasses.replace(data, train=Split(data.train.faces, targets))


def test_balance_adds_a_power_of_the_prior_in_the_loss(data: Dataset) -> None:
    data = skewed(data)
    learnt = tasks(data, 0.0, balance=0.5)
    logits, targets = torch.randn(5, 7), data.train.targets[:5]
    moved = logits + 0.5 * prior(data).log()
    torch.testing.assert_close(loss(logits, targets, learnt, 0.1), F.cross_entropy(
        moved, targets, label_smoothing=0.1
    ))  # fmt: skip


def test_what_is_kept_has_the_prior_in_its_bias_and_what_starts_from_it_has_not(
    data: Dataset,
) -> None:
    data = skewed(data)
    (task,) = tasks(data, 0.0, balance=1.0)
    config = NetworkConfig(widths=(4,), depths=(1,))
    network = AttentionFER(config).eval()
    images = torch.randn(3, 1, 48, 48)
    kept = network_of(network, task).eval()
    expected = network(images).logits + prior(data).log()
    torch.testing.assert_close(kept(images).logits, expected, atol=1e-5, rtol=1e-5)

    again = AttentionFER(config).eval()
    checkpoint = Checkpoint(kept, Manifest("start", "1", config, data.emotions))
    start_from(again, (task,), checkpoint)
    torch.testing.assert_close(again(images).logits, network(images).logits, atol=1e-5, rtol=1e-5)


def test_a_balanced_run_keeps_the_epoch_of_the_best_mean_recall(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    uneven = dataclasses.replace(  # accuracy and mean recall differ: neutral counts three times
        data,
        validation=Split(
            torch.cat([data.validation.faces, *[data.validation.faces[-4:]] * 2]),
            torch.cat([data.validation.targets, *[data.validation.targets[-4:]] * 2]),
        ),
    )
    balanced = dataclasses.replace(recipe, balance=1.0, epochs=6)
    history = fit(Run(skewed(uneven), balanced, InputSpec(), tmp_path, cpu))
    best = max(history, key=lambda entry: float(entry["validation_mean_recall"]))
    kept = load_checkpoint(tmp_path / BEST_FILE).manifest
    assert kept.version == f"epoch-{best['epoch']}"
    assert kept.prior == pytest.approx(prior(skewed(uneven)).tolist())
