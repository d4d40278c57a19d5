"""Converts pictures in any of Pillow's modes and orientations to upright grey levels.

Training and service both use it, so that a picture has the same grey levels in both. Large pictures
are converted in strips, so that only a small part is in memory twice at a time.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from training.model.manifest import InputSpec

STRIP_PIXELS = 1 << 18
"""About how many pixels are converted at a time."""

Grey = npt.NDArray[np.uint8]


class NotFiniteError(ValueError):
    """A picture has values that are not finite numbers."""


def upright_grey(image: Image.Image) -> Grey:
    """Return a picture as grey levels, uint8[h, w], 0-255, in its EXIF orientation."""
    grey = grey_levels(image)  # first: Pillow itself turns a TIFF when it loads it
    return turned(grey, orientation_of(image))


def grey_levels(image: Image.Image) -> Grey:
    """Load a picture and return its grey levels, without applying the orientation.

    Transparent parts are put on white. 16-bit values are scaled. 32-bit values, which have no
    standard white, are stretched from their own range.

    Args:
        image: Of any mode.

    Returns:
        uint8[h, w], 0-255.

    Raises:
        NotFiniteError: Some values are not numbers, or infinite.
    """
    image.load()
    convert = _conversion(image)
    if image.width * image.height <= STRIP_PIXELS:
        return convert(image)
    grey = np.empty((image.height, image.width), np.uint8)
    for top, strip in strips(image, 1):
        grey[top : top + strip.height] = convert(strip)
    return grey


def strips(image: Image.Image, multiple: int) -> Iterator[tuple[int, Image.Image]]:
    """Cut a loaded picture into copies of its rows.

    Args:
        image: Of any mode.
        multiple: The rows of each strip, except the last, are a multiple of it.

    Yields:
        The first row, and the strip.
    """
    rows = max(1, STRIP_PIXELS // image.width // multiple) * multiple
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def on_white(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Return a picture with transparent parts on a white background."""
    if image.mode == "La":  # premultiplied grey, the only mode that cannot become RGBA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    page = Image.new(mode, rgba.size, "white")
    page.paste(rgba.convert(mode), mask=rgba.getchannel("A"))
    return page


def orientation_of(image: Image.Image) -> int:
    """Return a loaded picture's EXIF orientation, 1 to 8; 1 if it is missing or invalid.

    As in browsers, from the file's EXIF block alone: Pillow's `getexif` would also read it from XMP
    and from text that ImageMagick leaves in a PNG.
    """
    try:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        found = int(exif.get(ExifTags.Base.Orientation, 1))
    # A valid picture with broken metadata: viewers ignore the orientation then.
    except Exception:  # noqa: BLE001 - whatever Pillow's parsers raise
        return 1
    return found if 1 <= found <= 8 else 1


def turned(pixels: Grey, orientation: int) -> Grey:
    """Apply an EXIF orientation, 1 to 8, to pixels, uint8[h, w] or [h, w, channels]."""
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1] if orientation in (2, 3) else pixels[::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1] if orientation in (3, 4) else pixels[:, ::-1]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)


def resized(grey: Grey, spec: InputSpec) -> Grey:
    """Resize grey levels, uint8[h, w], to a face, uint8[spec.height, spec.width]."""
    if grey.shape == (spec.height, spec.width):
        return grey
    resample = Image.Resampling[spec.resample.upper()]
    return np.asarray(Image.fromarray(grey).resize((spec.width, spec.height), resample))


def _conversion(image: Image.Image) -> Callable[[Image.Image], Grey]:
    if image.mode.startswith("I;16"):
        return _from_16_bits
    if image.mode in ("I", "F"):
        return _stretched_from(*_range(image))
    if image.has_transparency_data:
        return lambda part: np.asarray(on_white(part, "L"))
    if image.mode == "LAB":
        return lambda part: np.asarray(part.getchannel("L"))
    return lambda part: np.asarray(part.convert("L"))


def _from_16_bits(image: Image.Image) -> Grey:
    # Pillow's own conversion clips all values above 255 to white.
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def _range(image: Image.Image) -> tuple[float, float]:
    parts = (np.asarray(strip, dtype=np.float32) for _, strip in strips(image, 1))
    ends = np.array([(part.min(), part.max()) for part in parts])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())  # of NaN, NaN
    if not np.isfinite(high - low):
        raise NotFiniteError("values that are not finite numbers")
    return low, high


def _stretched_from(low: float, high: float) -> Callable[[Image.Image], Grey]:
    scale = 255.0 / (high - low) if high > low else 0.0

    def stretched(image: Image.Image) -> Grey:
        values = np.asarray(image, dtype=np.float32)
        return ((values - low) * scale + 0.5).astype(np.uint8)

    return stretched
