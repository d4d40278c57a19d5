"""What is sent: photographs with faces to find, and crops; as JPEG, in a form or by itself.

Portrait and background are public domain and come with scikit-image; no picture is stored in the
project.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_QUALITY = 90
_BOUNDARY = "----------------------------73b2c4a8e6d1"


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        title: In tables.
        size: Columns and rows.
        faces: How many there are to find; 0 of a crop, which is taken for a face as it is.
        portrait: Side of each portrait in a photograph, in pixels; its face has a quarter of that.
        connections: That the servers are compared with. Of what takes long there are fewer: a
            server that works on 64 of them at once would answer none before the load is over.
    """

    title: str
    size: tuple[int, int]
    faces: int = 0
    portrait: int = 0
    connections: int = 64

    @property
    def is_crop(self) -> bool:
        """Whether nobody has to look for faces in it."""
        return not self.faces


PICTURES = {
    "photo": Kind("1024 x 768, one face", (1024, 768), 1, 384),
    "webcam": Kind("640 x 480, one face", (640, 480), 1, 600),
    "crowd": Kind("4000 x 3000, twenty faces", (4000, 3000), 20, 700, 8),
    "48": Kind("48 px", (48, 48)),
    "256": Kind("256 px", (256, 256)),
    "1080": Kind("1080 px", (1080, 1080)),
    "12mp": Kind("12 megapixels", (4000, 3000)),
}
MAIN_PHOTOGRAPH, MAIN_CROP = "photo", "256"
"""What all servers are compared by; the others are sent for comparison."""


@dataclass(frozen=True)
class Body:
    """A request's body.

    Attributes:
        picture: A key of `PICTURES`, or "poison".
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
    """Return a picture as JPEG."""
    kind = PICTURES[picture]
    buffer = io.BytesIO()
    image = crop(kind.size) if kind.is_crop else photograph(kind)
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def crop(size: tuple[int, int]) -> Image.Image:
    """Return the portrait alone."""
    from skimage import data

    portrait = Image.fromarray(data.astronaut())
    if size[0] != size[1]:
        portrait = portrait.crop((0, 0, 512, 384))
    return portrait.resize(size, Image.Resampling.LANCZOS)


def photograph(kind: Kind) -> Image.Image:
    """Return portraits in rows before a background."""
    from skimage import data

    (width, height), side = kind.size, kind.portrait
    page = Image.fromarray(data.coffee()).resize(kind.size, Image.Resampling.LANCZOS)
    portrait = crop((side, side))
    columns = round(math.sqrt(kind.faces * width / height))
    rows = math.ceil(kind.faces / columns)
    for number in range(kind.faces):
        row, column = divmod(number, columns)
        x, y = width * (column + 0.5) / columns, height * (row + 0.5) / rows
        page.paste(portrait, (round(x - side / 2), round(y - side / 2)))
    return page


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
