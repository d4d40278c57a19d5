"""Tests of `service.engine.prior`: which prior a setting and a request name."""

import dataclasses

import numpy as np
import pytest

from service.config import SettingsError
from service.engine.prior import Priors
from tests.service.serving import MANIFEST, STATED
from training.model.prior import POWERS, reweigh

ROW = np.array([0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.2], np.float32)
SHARES = "anger:1,disgust:1,fear:1,happiness:2,sadness:1,surprise:1,neutral:3"


def test_the_default_is_balanced_where_the_checkpoint_states_its_prior() -> None:
    assert Priors(STATED).default.kind == "balanced"
    assert Priors(MANIFEST).default.kind == "training"


@pytest.mark.parametrize("name", POWERS)
def test_a_named_prior_is_that(name: str) -> None:
    default = Priors(STATED, name).default
    assert default.kind == default.text == name
    assert Priors(STATED).read(name).text == name


def test_shares_are_a_custom_prior_whose_text_names_it_again() -> None:
    priors = Priors(STATED, SHARES)
    assert priors.default.kind == "custom"
    assert priors.default.text == (
        "anger:0.1,disgust:0.1,fear:0.1,happiness:0.2,sadness:0.1,surprise:0.1,neutral:0.3"
    )
    again = priors.read(priors.default.text)
    assert again.text == priors.default.text
    first, second = (reweigh(ROW, one.adjustment) for one in (priors.default, again))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_an_older_checkpoint_answers_as_the_network_does() -> None:
    np.testing.assert_allclose(reweigh(ROW, Priors(MANIFEST).default.adjustment), ROW, atol=1e-7)


@pytest.mark.parametrize("setting", ["balanced", "uniform", SHARES])
def test_a_checkpoint_that_states_no_prior_has_no_other(setting: str) -> None:
    said = "FER_PRIOR is .*, but fake 7 does not state its labels' prior"
    with pytest.raises(SettingsError, match=said):
        Priors(MANIFEST, setting)
    with pytest.raises(ValueError, match="does not state"):
        Priors(MANIFEST).read(setting)


def test_shares_that_do_not_fit_the_checkpoint_are_refused_by_the_settings_name() -> None:
    with pytest.raises(SettingsError, match="FER_PRIOR is 'anger:1', but prior needs a share"):
        Priors(STATED, "anger:1")
    other = dataclasses.replace(STATED, emotions=("joy", *STATED.emotions[1:]))
    with pytest.raises(SettingsError, match="a share for each of joy, disgust"):
        Priors(other, SHARES)
