import pytest
import torch

from training.model.manifest import InputSpec
from training.model.preprocess import normalise


def test_normalises_by_mean_and_deviation() -> None:
    spec = InputSpec(mean=0.5, std=0.25)
    faces = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1).expand(3, 48, 48)
    images = normalise(faces, spec)
    assert images.shape == (3, 1, 48, 48)
    assert images.dtype == torch.float32
    expected = (torch.tensor([0, 128, 255]) / 255 - 0.5) / 0.25
    torch.testing.assert_close(images[:, 0, 0, 0], expected)


def test_leaves_the_faces_as_they_were() -> None:
    faces = torch.full((1, 48, 48), 7, dtype=torch.uint8)
    normalise(faces, InputSpec())
    assert (faces == 7).all()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"height": 8}, "height"),
        ({"width": 4096}, "width"),
        ({"height": 48.0}, "height"),
        ({"mean": 1.5}, "mean"),
        ({"std": 0.0}, "std"),
        ({"resample": "nearest"}, "resample"),
    ],
)
def test_refuses_what_is_no_face(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        InputSpec(**wrong)  # type: ignore[arg-type]
