import dataclasses

import torch

from training.augment import augment, flip, mixup
from training.config import AugmentConfig

NOTHING = AugmentConfig(
    flip=0, rotate_deg=0, scale=0, shift=0, brightness=0, contrast=0, erase=0, mixup=0
)


def images(n: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(n, 1, 48, 48)


def test_no_amount_changes_nothing() -> None:
    x = images()
    torch.testing.assert_close(augment(x, NOTHING), x, atol=1e-4, rtol=0)


def test_flip_mirrors_its_share_of_faces() -> None:
    x = images(400)
    out = flip(x, 0.5)
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    kept = (out == x).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 150 < int(mirrored.sum()) < 250


def test_augment_flips_too() -> None:
    x = images(8)
    out = augment(x, dataclasses.replace(NOTHING, flip=1.0))
    torch.testing.assert_close(out, x.flip(-1), atol=1e-4, rtol=0)


def test_shift_stays_within_its_share_of_the_side() -> None:
    dot = torch.zeros(200, 1, 49, 49)
    dot[:, :, 24, 24] = 1.0
    out = augment(dot, dataclasses.replace(NOTHING, shift=0.1))
    place = out.flatten(1).argmax(1)
    y, x = place // 49 - 24, place % 49 - 24
    assert max(int(y.abs().max()), int(x.abs().max())) <= 5
    assert len(set(x.tolist())) > 5


def test_erasing_blanks_a_rectangle_of_some_faces() -> None:
    x = torch.ones(300, 1, 48, 48)
    out = augment(x, dataclasses.replace(NOTHING, erase=0.5, erase_area=0.25))
    blanked = (out == 0).flatten(1).float().mean(1)
    assert 90 < int((blanked > 0).sum()) < 160  # half of them, but for the smallest
    assert float(blanked.max()) <= 0.26
    for face in out[blanked > 0][:20]:
        rows, columns = (face[0] == 0).any(1), (face[0] == 0).any(0)
        assert int((face == 0).sum()) == int(rows.sum() * columns.sum())


def test_each_face_has_its_own_light() -> None:
    x = torch.ones(100, 1, 48, 48)
    out = augment(x, dataclasses.replace(NOTHING, brightness=0.3, contrast=0.2))
    levels = out.mean((1, 2, 3))
    assert len(set(levels.tolist())) > 90
    assert 0.5 <= float(levels.min()) < 0.9
    assert 1.1 < float(levels.max()) <= 1.5


def test_mixup_blends_targets_as_it_blends_faces() -> None:
    targets = torch.eye(7)[torch.arange(70) % 7]
    faces = targets.argmax(1).float().view(-1, 1, 1, 1).expand(-1, 1, 4, 4)  # grey = the label
    torch.manual_seed(0)
    mixed, soft = mixup(faces, targets, 0.5)
    torch.testing.assert_close(soft.sum(1), torch.ones(70))
    torch.testing.assert_close(mixed[:, 0, 0, 0], soft @ torch.arange(7.0))
    assert (soft.max(1).values < 0.99).any()


def test_same_seed_same_faces() -> None:
    x = images()
    torch.manual_seed(5)
    first = augment(x, AugmentConfig())
    torch.manual_seed(5)
    assert torch.equal(augment(x, AugmentConfig()), first)


def test_gamma_bends_greys_and_keeps_the_darkest_and_the_brightest() -> None:
    ramp = torch.linspace(-1.0, 1.0, 48).expand(50, 1, 48, 48).contiguous()
    out = augment(ramp, dataclasses.replace(NOTHING, gamma=0.5))
    torch.testing.assert_close(out.amax((2, 3)), ramp.amax((2, 3)), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.amin((2, 3)), ramp.amin((2, 3)), atol=1e-2, rtol=0)
    assert (out[..., 1:] >= out[..., :-1] - 1e-5).all()  # what was brighter stays brighter
    middle = (out[:, 0, 0, 24] + 1.0) / 2.0  # 0.51 to the power of 1/1.5 to 1.5
    assert 0.35 < float(middle.min()) < 0.45
    assert 0.55 < float(middle.max()) < 0.65


def test_a_flat_face_has_no_greys_to_bend() -> None:
    flat = torch.full((4, 1, 48, 48), 0.3)
    out = augment(flat, dataclasses.replace(NOTHING, gamma=0.5))
    torch.testing.assert_close(out, flat, atol=2e-3, rtol=0)


def test_its_share_of_faces_is_seen_through_fewer_pixels() -> None:
    fine = (torch.arange(48) % 2 * 2.0 - 1.0).expand(400, 1, 48, 48).contiguous()
    torch.manual_seed(1)
    out = augment(fine, dataclasses.replace(NOTHING, resolution=0.5, fewest_pixels=8))
    contrast = out.std((1, 2, 3))
    coarse = contrast < 0.9 * fine.std((1, 2, 3))
    assert 150 < int(coarse.sum()) < 250
    torch.testing.assert_close(out[~coarse], fine[~coarse], atol=1e-4, rtol=0)


def test_noise_differs_from_face_to_face_and_stays_within_its_deviation() -> None:
    out = augment(torch.zeros(200, 1, 48, 48), dataclasses.replace(NOTHING, noise=0.2))
    deviations = out.std((1, 2, 3))
    assert float(deviations.max()) < 0.21
    assert float(deviations.max()) - float(deviations.min()) > 0.15
