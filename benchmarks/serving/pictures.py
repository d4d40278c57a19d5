"""What is sent: one portrait in four sizes, as JPEG, in a form or by itself.

The portrait is public domain and comes with scikit-image; no picture is stored in the project.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"48": (48, 48), "256": (256, 256), "1080": (1080, 1080), "12mp": (4000, 3000)}
TITLES = {"48": "48 px", "256": "256 px", "1080": "1080 px", "12mp": "12 megapixels"}
_QUALITY = 90
_BOUNDARY = "----------------------------73b2c4a8e6d1"


@dataclass(frozen=True)
class Body:
    """A request's body.

    Attributes:
        picture: A key of `SIZES`, or "poison".
        form: Whether it is a multipart form; otherwise the picture's bytes alone.
        data: The bytes.
        kind: The Content-Type.
    """

    picture: str
    form: bool
    data: bytes
    kind: str

    @property
    def name(self) -> str:
        """For progress."""
        return f"{self.picture} {'form' if self.form else 'raw'}"

    def keep(self, folder: Path) -> Path:
        """Write it where the load generator reads it."""
        path = folder / f"{self.picture}-{'form' if self.form else 'raw'}.body"
        if not path.is_file() or path.read_bytes() != self.data:
            path.write_bytes(self.data)
        return path


def jpeg(picture: str) -> bytes:
    """Return the portrait as JPEG of one of the sizes."""
    from skimage import data

    width, height = SIZES[picture]
    portrait = Image.fromarray(data.astronaut())
    if width != height:
        portrait = portrait.crop((0, 0, 512, 384))
    buffer = io.BytesIO()
    portrait.resize((width, height), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=_QUALITY
    )
    return buffer.getvalue()


def poison() -> bytes:
    """Return what begins like a JPEG and is none."""
    noise = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    return jpeg("256")[:300] + noise


def body(picture: str, *, form: bool, field: str = "image") -> Body:
    """Wrap a picture; `field` is the form's."""
    data = poison() if picture == "poison" else jpeg(picture)
    if not form:
        return Body(picture, False, data, "image/jpeg")
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    whole = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Body(picture, True, whole, f"multipart/form-data; boundary={_BOUNDARY}")
