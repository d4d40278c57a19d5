"""From a loaded picture in any of Pillow's modes to a small copy in colour.

What is transparent is shown on white, as in `training.model.grey`.
"""

import math

from PIL import Image

from service.pictures.search import FINEST_SIDE, shrinking
from training.model.grey import grey_levels, on_white, strips


def shrunk_colour(image: Image.Image) -> Image.Image:
    """Return a loaded picture of any mode in RGB, its long side at most what is looked at."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F", "L", "1", "LAB"):
        grey = Image.fromarray(grey_levels(image))
        return _shrunk(grey, *grey.size).convert("RGB")
    if image.mode == "RGB" and not image.has_transparency_data:
        return _shrunk(image, *image.size)
    factor = max(image.size) // FINEST_SIDE
    if factor <= 1:
        return _shrunk(_as_rgb(image), *image.size)
    return _shrunk(_reduced(image, factor), image.width / factor, image.height / factor)


def _as_rgb(image: Image.Image) -> Image.Image:
    return on_white(image, "RGB") if image.has_transparency_data else image.convert("RGB")


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Return the means of squares of `factor` pixels a side, in RGB, made strip by strip."""
    size = math.ceil(image.width / factor), math.ceil(image.height / factor)
    reduced = Image.new("RGB", size)
    for top, strip in strips(image, factor):
        reduced.paste(_as_rgb(strip).reduce(factor), (0, top // factor))
    return reduced


def _shrunk(image: Image.Image, width: float, height: float) -> Image.Image:
    """Bring the top left part of a picture, of that width and height, to the size looked at."""
    # Of a reduced picture the last squares may stand for fewer pixels, and count by as much less.
    scale = shrinking(max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if size == image.size:
        return image
    # The gap of 1 averages whole pixels first: six times faster, and no face was missed by it.
    box = (0, 0, width, height)
    return image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=1.0)
