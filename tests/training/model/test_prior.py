import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.prior import POWERS, adjustment, named_prior, read_prior, reweigh

PRIOR = (0.1, 0.02, 0.04, 0.3, 0.14, 0.1, 0.3)
TEMPERATURES = {"training": 1.0, "balanced": 1.4, "uniform": 1.6}
STATED = Manifest("m", "1", NetworkConfig(), FER2013_EMOTIONS, prior=PRIOR)


def answers(count: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(7), count).astype(np.float32)


def test_bayes_rule_on_a_hand_made_answer() -> None:
    two = Manifest("m", "1", NetworkConfig(classes=2), ("a", "b"), prior=(0.8, 0.2))
    adjusted = reweigh(np.array([0.6, 0.4], np.float32), adjustment(two, (0.5, 0.5)))
    # 0.6 / 0.8 against 0.4 / 0.2
    assert adjusted == pytest.approx([0.75 / 2.75, 2.0 / 2.75])


def test_what_was_generated_under_another_prior_is_recovered() -> None:
    """Likelihoods times either prior are either's posterior: one becomes the other exactly."""
    likelihoods = np.random.default_rng(1).random((50, 7)) + 0.01
    target = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    before, after = (
        (likelihoods * prior / (likelihoods @ prior)[:, None]).astype(np.float32)
        for prior in (np.array(PRIOR), target)
    )
    np.testing.assert_allclose(reweigh(before, adjustment(STATED, tuple(target))), after, atol=1e-6)


def test_the_training_prior_changes_nothing() -> None:
    rows = answers(20)
    np.testing.assert_allclose(reweigh(rows, adjustment(STATED, PRIOR)), rows, atol=1e-6)


def test_one_row_is_as_a_row_of_many() -> None:
    rows, how = answers(5), adjustment(STATED, named_prior(PRIOR, "uniform"))
    together = reweigh(rows, how)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(1), 1.0, atol=1e-6)
    for row, expected in zip(rows, together, strict=True):
        np.testing.assert_allclose(reweigh(row, how), expected, atol=1e-7)


@pytest.mark.parametrize("name", POWERS)
def test_each_named_prior_has_its_own_temperature(name: str) -> None:
    fitted = dataclasses.replace(STATED, temperature=0.7, temperatures=TEMPERATURES)
    how = adjustment(fitted, named_prior(PRIOR, name))
    assert how.scale == pytest.approx(0.7 / TEMPERATURES[name])


def test_a_prior_between_two_has_a_temperature_between_theirs() -> None:
    fitted = dataclasses.replace(STATED, temperatures=TEMPERATURES)
    between = np.array(PRIOR) ** 0.75
    how = adjustment(fitted, tuple(between / between.sum()))
    assert how.scale == pytest.approx(1.0 / 1.2)
    beyond = np.array(PRIOR) ** 3.0
    assert adjustment(fitted, tuple(beyond / beyond.sum())).scale == pytest.approx(1.0)


def test_a_training_prior_that_is_uniform_has_one_temperature() -> None:
    even = dataclasses.replace(STATED, prior=(1 / 7,) * 7, temperatures={"training": 2.0})
    assert adjustment(even, (1 / 7,) * 7).scale == pytest.approx(0.5)


def test_an_emotion_without_a_share_is_never_the_answer() -> None:
    without = read_prior(
        "anger:1,disgust:1,fear:1,happiness:0,sadness:1,surprise:1,neutral:1", STATED
    )
    adjusted = reweigh(answers(20), adjustment(STATED, without))
    assert (adjusted[:, 3] == 0).all()
    np.testing.assert_allclose(adjusted.sum(1), 1.0, atol=1e-6)


def test_certainty_stays_a_number() -> None:
    certain = np.array([0, 0, 0, 1, 0, 0, 0], np.float32)
    adjusted = reweigh(certain, adjustment(STATED, named_prior(PRIOR, "uniform")))
    assert np.isfinite(adjusted).all()
    assert adjusted[3] == pytest.approx(1.0)


def test_named_priors_are_powers_of_the_training_one() -> None:
    assert named_prior(PRIOR, "training") == pytest.approx(PRIOR)
    assert named_prior(PRIOR, "uniform") == pytest.approx((1 / 7,) * 7)
    balanced = named_prior(PRIOR, "balanced")
    assert sum(balanced) == pytest.approx(1.0)
    assert balanced[3] / balanced[1] == pytest.approx((0.3 / 0.02) ** 0.5)
    assert read_prior("balanced", STATED) == balanced


def test_shares_are_read_by_name_and_scaled() -> None:
    text = "neutral:3, anger:1,disgust:1,fear:1,happiness:2,sadness:1,surprise:1"
    assert read_prior(text, STATED) == pytest.approx((0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("even", "'even', expected uniform, training, balanced"),
        ("", "expected uniform"),
        ("anger:1", "a share for each of anger, disgust"),
        ("joy:1,anger:1,disgust:1,fear:1,happiness:2,sadness:1,surprise:1", "a share for each"),
        ("anger:1,anger:1,disgust:1,fear:1,happiness:2,sadness:1,surprise:1,neutral:1", "once"),
        ("anger:x,disgust:1,fear:1,happiness:2,sadness:1,surprise:1,neutral:1", "share 'x'"),
        ("anger:-1,disgust:1,fear:1,happiness:2,sadness:1,surprise:1,neutral:1", "share '-1'"),
        ("anger:nan,disgust:1,fear:1,happiness:2,sadness:1,surprise:1,neutral:1", "share 'nan'"),
        ("anger:0,disgust:0,fear:0,happiness:0,sadness:0,surprise:0,neutral:0", "above 0"),
    ],
)  # fmt: skip
def test_a_prior_that_is_none_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_prior(text, STATED)


def test_a_checkpoint_that_states_no_prior_is_named() -> None:
    silent = dataclasses.replace(STATED, prior=None)
    with pytest.raises(ValueError, match="m 1 does not state"):
        adjustment(silent, PRIOR)
    with pytest.raises(ValueError, match="3 shares for 7 emotions"):
        adjustment(STATED, (0.2, 0.2, 0.6))


def test_serving_needs_no_torch_for_it() -> None:
    code = "import sys, training.model.prior; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
