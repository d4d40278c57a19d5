"""From a picture in any of Pillow's modes to grey, and to a small copy in colour.

What is transparent is shown on white. Not its duty: reading the file, turning it upright.
"""

import numpy as np
from PIL import Image

from service.errors import BadImage
from service.pictures.search import FINEST_SIDE

_NEARLY = 0.8


def as_grey(image: Image.Image) -> Image.Image:
    """Load a picture of any mode and return it in mode L, 8 bits a pixel."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.has_transparency_data:
        return _on_white(image, "L")
    if image.mode == "CMYK":
        return image.convert("RGB").convert("L")
    if image.mode == "LAB":
        return image.getchannel("L")
    return image.convert("L")


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _stretched(image: Image.Image) -> Image.Image:
    """Map 32-bit integers or floats, which have no agreed white, from their own range to 0-255."""
    values = np.asarray(image, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise BadImage("The image has values that are not finite numbers.")
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(((values - low) * scale + 0.5).astype(np.uint8))


def shrunk_colour(image: Image.Image) -> Image.Image:
    """Return a loaded picture of any mode in RGB, its long side at most the finest look's."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return _shrunk(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F", "L", "1"):
        return _shrunk(as_grey(image)).convert("RGB")
    if image.has_transparency_data:
        return _shrunk(_on_white(image, "RGB"))
    if image.mode == "LAB":
        return _shrunk(image.getchannel("L")).convert("RGB")
    return _shrunk(image.convert("RGB"))


def _shrunk(image: Image.Image) -> Image.Image:
    scale = FINEST_SIDE / max(image.size)
    if scale > _NEARLY:  # to shrink it would cost more than it saves
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # The gap of 1 averages whole pixels first: six times faster, and no face was missed by it.
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "La":  # premultiplied grey, the one mode without a way to RGBA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    page = Image.new(mode, rgba.size, "white")
    page.paste(rgba.convert(mode), mask=rgba.getchannel("A"))
    return page
