"""Tests of `service.engine.evidence`: each part against what it is said to be."""

import copy
import math
import pickle

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from service.config import SHIPPED
from service.drawing.frames import View, describe, project
from service.engine.evidence import explain
from service.engine.explanation import Explanation
from service.engine.torch_engine import TorchEngine
from service.pictures.faces import Box
from tests.service.engine.test_torch_engine import build_checkpoint, some_faces
from training.model.attention import SpatialAttention
from training.model.checkpoint import load_checkpoint
from training.model.manifest import InputSpec, NetworkConfig
from training.model.network import AttentionFER
from training.model.preprocess import normalise

pytestmark = pytest.mark.cpu

SPEC = InputSpec()
SMALL = NetworkConfig(widths=(8, 16), depths=(1, 2))


@pytest.fixture
def network() -> AttentionFER:
    return build_checkpoint(SMALL).network


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> TorchEngine:
    return TorchEngine(load_checkpoint(SHIPPED[request.param]), "cpu", threads=1)


def images(count: int = 3) -> Tensor:
    return normalise(torch.from_numpy(some_faces(count)), SPEC)


def explain_answers(network: AttentionFER, given: Tensor) -> list[Explanation]:
    """Explain each face's most probable emotion."""
    with torch.no_grad():
        emotions = network(given).logits.argmax(dim=1)
    return explain(network, given, emotions, SPEC)


# The transform.


def transform_by(network: AttentionFER, *parameters: float) -> None:
    """Have the STN answer every face with the same numbers before tanh."""
    assert network.stn is not None
    network.stn.head.reset_parameters()
    network.stn.head.bias.data = torch.tensor(parameters)


def test_what_is_straight_stays_as_it_is(network: AttentionFER) -> None:
    transform_by(network, 0.0, 0.0, 0.0, 0.0)
    for face, explanation in zip(some_faces(3), explain_answers(network, images()), strict=True):
        np.testing.assert_array_equal(explanation.theta, np.eye(2, 3))
        assert explanation.straightened.dtype == np.uint8
        np.testing.assert_allclose(explanation.straightened, face, atol=1)


def test_the_transform_is_the_networks_own(network: AttentionFER) -> None:
    transform_by(network, 0.5, 1.0, -0.2, 0.4)
    assert network.stn is not None
    with torch.no_grad():
        straight, theta = network.stn(images())
    found = explain_answers(network, images())
    np.testing.assert_array_equal([e.theta for e in found], theta)
    grey = (straight[:, 0] * SPEC.std + SPEC.mean) * 255
    np.testing.assert_allclose([e.straightened for e in found], grey, atol=0.51)
    made = describe(found[0].theta)
    assert made.angle_deg == pytest.approx(-45 * math.tanh(1.0), abs=1e-4)
    assert made.scale == pytest.approx(1.3 ** -math.tanh(0.5), abs=1e-5)
    assert made.shift_x == pytest.approx(0.25 * math.tanh(0.2), abs=1e-6)
    assert made.shift_y == pytest.approx(-0.25 * math.tanh(0.4), abs=1e-6)


def test_a_network_without_stn_or_attention_has_neither() -> None:
    config = NetworkConfig(widths=(8,), depths=(1,), stn=False, spatial_attention=False)
    (explanation,) = explain_answers(build_checkpoint(config).network, images(1))
    np.testing.assert_array_equal(explanation.theta, np.eye(2, 3))
    np.testing.assert_array_equal(explanation.straightened, some_faces(1)[0])
    assert explanation.attention is None
    assert explanation.evidence.shape == (24, 24)


# The attention.


def test_the_attention_is_the_modules_own(network: AttentionFER) -> None:
    attentions = [m for m in network.modules() if isinstance(m, SpatialAttention)]
    seen: list[Tensor] = []
    handle = attentions[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found = explain_answers(network, images())
    handle.remove()
    expected = attentions[1].weights(seen[0].detach())[:, 0]
    assert expected.shape == (3, 12, 12)
    np.testing.assert_array_equal([e.attention for e in found], expected)


# The evidence.


@pytest.mark.parametrize("rank", [0, 1, 6])
def test_the_evidence_is_layercam_above_the_mean_place_by_finite_differences(rank: int) -> None:
    config = NetworkConfig(widths=(8, 16), depths=(1, 1), stn=False)
    network = build_checkpoint(config).network.double()
    given = images(1).double()
    with torch.no_grad():
        emotion = int(network(given).logits[0].argsort(descending=True)[rank])
    (explanation,) = explain(network, given, torch.tensor([emotion]), SPEC)

    def excess(features: Tensor) -> Tensor:
        rest: Tensor = network.stages[1](features)
        logits = network.classify(rest.mean(dim=(2, 3)))[0]
        return logits[emotion] - logits.mean()

    with torch.no_grad():
        features = network.stages[0](network.stem(given))
        for y, x in ((0, 0), (7, 11), (12, 12), (23, 5)):
            expected = 0.0
            for channel in range(8):
                more, less = features.clone(), features.clone()
                more[0, channel, y, x] += 1e-4
                less[0, channel, y, x] -= 1e-4
                slope = float(excess(more) - excess(less)) / 2e-4
                above = features[0, channel, y, x] - features[0, channel].mean()
                expected += max(0.0, slope) * float(above)
            assert explanation.evidence[y, x] == pytest.approx(max(0.0, expected), abs=1e-7)


def test_a_face_does_not_see_its_neighbours(network: AttentionFER) -> None:
    together = explain_answers(network, images())
    for place, explanation in enumerate(together):
        (alone,) = explain_answers(network, images()[place : place + 1])
        for name in ("theta", "attention", "evidence"):
            one, many = getattr(alone, name), getattr(explanation, name)
            np.testing.assert_allclose(one, many, atol=1e-5)


def test_nothing_stays_behind(network: AttentionFER) -> None:
    before = copy.deepcopy(network.state_dict())
    first = network(images()).logits
    explain_answers(network, images())
    pickle.dumps(network)  # impossible with a hook that is a local function
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(network(images()).logits, first, rtol=0, atol=0)


# The shipped network.

PORTRAIT = Image.fromarray(skimage.data.astronaut()).convert("L")
MOUTH = (200, 136, 252, 162)  # in the portrait
Crop = tuple[int, int, int, int]


def cut(crop: Crop, turned_deg: float = 0.0) -> NDArray[np.uint8]:
    """Return the portrait's face, turned clockwise, as uint8[1, 48, 48]."""
    middle = ((crop[0] + crop[2]) / 2, (crop[1] + crop[3]) / 2)
    turned = PORTRAIT.rotate(-turned_deg, Image.Resampling.BICUBIC, center=middle)
    return np.asarray(turned.crop(crop).resize((48, 48), Image.Resampling.BILINEAR))[None]


def in_mouth(explanation: Explanation, mouth: tuple[slice, slice]) -> float:
    """Return the share of the evidence that lies over the mouth."""
    whole = View(0, 0, 48, 48, 48, 48)
    over = project(explanation.evidence, explanation.theta, Box(0, 0, 48, 48), whole)
    over = np.nan_to_num(over, nan=0.0).clip(0)
    return float(over[mouth].sum() / over.sum())


def test_the_evidence_moves_off_a_mouth_that_is_covered(shipped: TorchEngine) -> None:
    crops = (165, 50, 285, 170), (170, 60, 275, 165), (160, 40, 290, 170), (175, 70, 270, 165)
    left_of_it = [left_over_the_mouth(shipped, crop) for crop in crops]
    assert max(left_of_it) < 0.5
    assert sum(left_of_it) / len(crops) < 0.4


def left_over_the_mouth(shipped: TorchEngine, crop: Crop) -> float:
    """Return what share of the evidence over a smile is left there when the mouth is covered."""
    face = cut(crop)
    scale = 48 / (crop[2] - crop[0])
    left, top, right, bottom = (
        round((side - crop[place % 2]) * scale) for place, side in enumerate(MOUTH)
    )
    mouth = slice(top, bottom), slice(left, right)
    covered = face.copy()
    covered[0][mouth] = round(float(face[0, top - 2 : top, left:right].mean()))  # skin
    happiness = shipped.manifest.emotions.index("happiness")
    before, after = (shipped.explain(f, np.array([happiness]))[0] for f in (face, covered))
    assert [int(shipped.infer(f)[0].argmax()) for f in (face, covered)] == [happiness] * 2
    assert in_mouth(before, mouth) > 1.2 * (right - left) * (bottom - top) / 48**2
    return in_mouth(after, mouth) / in_mouth(before, mouth)


def test_a_turned_face_is_turned_back(shipped: TorchEngine) -> None:
    crop = (165, 50, 285, 170)
    faces = np.concatenate([cut(crop, deg) for deg in (-20, 0, 20)])
    found = shipped.explain(faces, shipped.infer(faces).argmax(axis=1))
    turns = [describe(one.theta).angle_deg for one in found]
    assert turns[0] > turns[1] + 2 > turns[2] + 4


# The engine.


@pytest.fixture(params=[SMALL, NetworkConfig(widths=(8,), depths=(1,), transform="affine")])
def engine(request: pytest.FixtureRequest) -> TorchEngine:
    return TorchEngine(build_checkpoint(request.param), "cpu", threads=1)


def test_the_engine_explains_what_it_infers(engine: TorchEngine) -> None:
    faces = some_faces(3)
    before = engine.infer(faces)
    found = engine.explain(faces, before.argmax(axis=1))
    assert [e.straightened.shape for e in found] == [(48, 48)] * 3
    assert all((e.evidence >= 0).all() and e.evidence.any() for e in found)
    np.testing.assert_array_equal(engine.infer(faces), before)
    assert engine.explain(faces[:0], np.zeros(0, np.int64)) == []


def test_other_faces_are_refused(engine: TorchEngine) -> None:
    with pytest.raises(ValueError, match=r"expected uint8\[n, 48, 48\]"):
        engine.explain(np.zeros((1, 47, 48), np.uint8), np.zeros(1, np.int64))


@pytest.mark.parametrize("emotions", [[], [0], [0, 7], [-1, 0], [[0], [0]]])
def test_emotions_that_do_not_fit_are_refused(emotions: list[int], engine: TorchEngine) -> None:
    with pytest.raises(ValueError, match="an emotion, 0 to 6, for each of 2"):
        engine.explain(some_faces(2), np.array(emotions, np.int64))


def test_folding_does_not_change_the_explanation() -> None:
    checkpoint = build_checkpoint(SMALL)
    folded = TorchEngine(checkpoint, "cpu").explain(some_faces(2), np.array([3, 5]))
    plain = explain(checkpoint.network, images(2), torch.tensor([3, 5]), SPEC)
    for one, other in zip(folded, plain, strict=True):
        np.testing.assert_allclose(one.evidence, other.evidence, atol=1e-5)
        assert one.attention is not None
        assert other.attention is not None
        np.testing.assert_allclose(one.attention, other.attention, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this host")
def test_cuda_explains_as_the_cpu_does() -> None:
    checkpoint = build_checkpoint(SMALL)
    engines = [TorchEngine(checkpoint, device) for device in ("cuda", "cpu")]
    found = [engine.explain(some_faces(4), np.arange(4)) for engine in engines]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.theta, other.theta, atol=5e-3)
        # Convolutions round their inputs to TF32, ten bits of mantissa.
        np.testing.assert_allclose(one.evidence, other.evidence, atol=2e-2 * other.evidence.max())
