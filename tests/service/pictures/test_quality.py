import numpy as np
from PIL import Image

from service.pictures.quality import judge
from tests.service.collages import portrait


def shown(blur: int = 1, light: float = 1.0) -> np.ndarray:
    face = portrait(96).convert("L").crop((48, 48, 144, 144)).resize((48, 48))
    soft = face.resize((48 // blur, 48 // blur)).resize((48, 48), Image.Resampling.BICUBIC)
    return (np.asarray(soft) * light).astype(np.uint8)


def test_a_sharp_and_lit_face_is_usable() -> None:
    quality = judge(shown(), 96.04)
    assert quality.usable
    assert quality.size == 96.0
    assert 0.2 < quality.brightness < 0.8


def test_blur_takes_sharpness_and_dimming_does_not() -> None:
    sharpness = [judge(shown(blur), 96).sharpness for blur in (1, 2, 4, 8)]
    assert sharpness == sorted(sharpness, reverse=True)
    assert not judge(shown(8), 96).usable
    assert abs(judge(shown(light=0.5), 96).sharpness / sharpness[0] - 1) < 0.1


def test_what_is_dark_flat_or_tiny_is_not_usable() -> None:
    assert not judge(shown(light=0.1), 96).usable
    assert not judge(np.full((48, 48), 128, np.uint8), 96).usable
    assert not judge(shown(), 20).usable
    assert judge(np.zeros((1, 1), np.uint8), 1).sharpness == 0
