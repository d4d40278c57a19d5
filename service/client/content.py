"""What a caller gives as a picture, as the bytes of one.

numpy and Pillow are imported only for a caller who gives a picture of theirs.
"""

import io
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

if TYPE_CHECKING:
    import PIL.Image


class Array(Protocol):
    """An array of pixels: numpy's, or another library's with numpy's array interface."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Shape and type of the pixels."""


Image: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PIL.Image.Image | Array"
)
"""A picture: its path (str or a path object), its bytes, a binary file object, a picture of Pillow,
or an array: uint8[h, w] or [h, w, 1] grey, uint8[h, w, 3] RGB, uint8[h, w, 4] RGBA, uint16[h, w]
grey."""

# Of Pillow's modes those that a PNG keeps as they are, and those that a TIFF keeps.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_TIFF_MODES = ("I", "F", "CMYK", "LAB", "YCbCr", "I;16B")
_PIXELS = "uint8[h, w], uint8[h, w, 1, 3 or 4] or uint16[h, w]"


def read_content(image: Image) -> bytes:
    """Return the bytes of a picture file.

    A path is opened; a file object is read from where it stands. Pictures of Pillow (turned
    upright by their EXIF) and arrays are encoded without loss.

    Raises:
        OSError: The file cannot be read.
        TypeError: It is nothing of `Image`.
        ValueError: An array is not one of pixels.
    """
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            return file.read()
    if isinstance(image, bytes):
        return image
    if _is_pillow(image):  # before arrays: these have the interface of one too
        return _encode(image)
    if hasattr(image, "__array_interface__"):
        return _encode_array(image)
    return _read(image) if hasattr(image, "read") else _copied(image)


def _is_pillow(image: object) -> bool:
    # Whoever has a picture of Pillow has imported it.
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _read(file: Any) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        given = type(content).__name__
        raise TypeError(f"the file object gives {given}, not bytes: open it with mode 'rb'")
    return content


def _copied(image: Any) -> bytes:
    try:
        return bytes(memoryview(image))
    except TypeError:
        raise TypeError(
            "a picture is a path, bytes, a binary file object, a PIL image or an array, "
            f"not {type(image).__name__}"
        ) from None


def _encode_array(array: Any) -> bytes:
    from PIL import Image  # only for who gives an array

    interface = array.__array_interface__
    shape, kind = tuple(interface["shape"]), interface["typestr"][1:]
    grey = len(shape) == 2 or shape[2:] == (1,)
    depth = kind == "u1" and len(shape) == 3 and shape[2] in (3, 4)
    if 0 in shape or len(shape) not in (2, 3) or not (depth or (grey and kind in ("u1", "u2"))):
        raise ValueError(
            f"an array of pixels is {_PIXELS}, not {interface['typestr']} of shape {shape}"
        )
    if grey and len(shape) == 3:
        array = array.reshape(shape[:2])
    return _encode(Image.fromarray(array))


def _encode(image: Any) -> bytes:
    from service.client.picture import orientation_of, turned  # likewise

    image.load()  # first: Pillow itself turns a TIFF when it loads it
    image = turned(image, orientation_of(image))
    if image.mode == "La":  # premultiplied grey, the only mode that cannot become RGBA
        image = image.convert("LA")
    elif image.mode.startswith("I;16") and image.mode not in (*_PNG_MODES, *_TIFF_MODES):
        image = image.convert("I").convert("I;16")
    elif image.mode not in (*_PNG_MODES, *_TIFF_MODES):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    content = io.BytesIO()
    if image.mode in _TIFF_MODES:
        image.save(content, "TIFF")
    else:
        image.save(content, "PNG", compress_level=1)  # it is sent once, not stored
    return content.getvalue()
