import pytest
import torch

from tests.training.conftest import made_up
from training.machine import Machine
from training.model.checkpoint import Checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER
from training.robustness import (
    CORRUPTIONS,
    GEOMETRY,
    brighten,
    compress,
    cover_eyes,
    cover_mouth,
    measure_curves,
    rotate,
    scale,
    shift,
)

NEUTRAL = {
    "rotation (degrees)": 0.0, "scale": 1.0, "shift (share of side)": 0.0,
    "blur (sigma, pixels)": 0.0, "noise (grey levels)": 0.0, "brightness": 1.0,
    "eyes covered": 0.0, "mouth covered": 0.0,
}  # fmt: skip


def faces() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8, generator=generator)


def dot(y: int, x: int) -> torch.Tensor:
    image = torch.zeros(1, 49, 49, dtype=torch.uint8)
    image[0, y, x] = 255
    return image


def place(image: torch.Tensor) -> tuple[int, int]:
    y, x = divmod(int(image.argmax()), image.shape[2])
    return y, x


@pytest.mark.parametrize("name", NEUTRAL)
def test_the_neutral_level_changes_nothing(name: str) -> None:
    corrupt, levels = CORRUPTIONS[name]
    assert NEUTRAL[name] in levels
    assert torch.equal(corrupt(faces(), NEUTRAL[name]), faces())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_level_gives_other_faces_of_the_same_kind(name: str) -> None:
    corrupt, levels = CORRUPTIONS[name]
    for level in levels:
        out = corrupt(faces(), level)
        assert out.dtype == torch.uint8
        assert out.shape == faces().shape
        assert torch.equal(out, faces()) == (level == NEUTRAL.get(name))
        assert torch.equal(out, corrupt(faces(), level))  # the same each time


def test_geometry_goes_where_it_says() -> None:
    assert place(rotate(dot(24, 40), 90.0)) == (8, 24)  # anticlockwise: right goes up
    assert place(scale(dot(24, 30), 2.0)) == (24, 36)
    assert place(shift(dot(24, 24), 10 / 49)) == (34, 34)
    assert GEOMETRY == ("rotation (degrees)", "scale", "shift (share of side)")


def test_light_and_cover() -> None:
    grey = torch.full((1, 48, 48), 100, dtype=torch.uint8)
    assert brighten(grey, 0.5).unique().tolist() == [50]
    assert brighten(grey, 3.0).unique().tolist() == [255]
    eyes, mouth = cover_eyes(grey, 1.0), cover_mouth(grey, 1.0)
    rows = [int((image[0, :, 0] == 127).nonzero().float().mean()) for image in (eyes, mouth)]
    assert 15 < rows[0] < 21
    assert 34 < rows[1] < 40
    assert int((eyes == 127).sum()) == int((mouth == 127).sum()) == 16 * 48


def test_stronger_compression_loses_more() -> None:
    x = faces()
    losses = [(compress(x, q).float() - x).abs().mean() for q in (90.0, 40.0, 5.0)]
    assert losses == sorted(losses)


def test_curves_have_every_level(cpu: Machine) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(widths=(8,), depths=(1,))
    network = AttentionFER(config).eval()
    checkpoint = Checkpoint(network, Manifest("tiny", "1", config, FER2013_EMOTIONS))
    curves = measure_curves(checkpoint, made_up(2, 0), cpu, GEOMETRY)
    assert tuple(curves) == GEOMETRY
    for name, points in curves.items():
        assert tuple(point["level"] for point in points) == CORRUPTIONS[name][1]
        assert all(0 <= point["accuracy"] <= 1 for point in points)
