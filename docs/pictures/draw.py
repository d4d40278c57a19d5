"""Draws the pictures of README.md anew, from a service that runs.

usage: python docs/pictures/draw.py [http://localhost:8000]

Writes `page.png`, the page as Chromium shows it (Debian's package `chromium`), and
`explanation.png`, what `POST /explain` draws. The face in both is Eileen Collins' portrait by
NASA, which is in the public domain and comes with scikit-image.
"""

import io
import sys
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import sync_playwright
from skimage.data import astronaut

FOLDER = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
COLOURS = 256
PAGE_SIZE = {"width": 900, "height": 1110}


def portrait() -> bytes:
    """Return the portrait as a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def page(url: str) -> Image.Image:
    """Return the page after a picture was chosen and answered."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport=PAGE_SIZE, reduced_motion="reduce")
        tab.goto(url)
        file = {"name": "portrait.jpg", "mimeType": "image/jpeg", "buffer": portrait()}
        tab.set_input_files("#files", file)
        tab.get_by_role("article").get_by_role("heading", level=4).wait_for()
        shot = tab.screenshot()
        browser.close()
    return Image.open(io.BytesIO(shot))


def explanation(url: str) -> Image.Image:
    """Return the figure that the service draws of the portrait."""
    response = httpx.post(
        f"{url}/explain", files={"image": portrait()}, headers={"accept": "image/png"}
    )
    response.raise_for_status()
    return Image.open(io.BytesIO(response.content))


def save(picture: Image.Image, name: str) -> None:
    """Write a picture with few colours, so that the file is small."""
    picture.convert("RGB").quantize(COLOURS).save(FOLDER / name, optimize=True)


def main() -> None:
    """Draw both."""
    url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
    save(page(url), "page.png")
    save(explanation(url), "explanation.png")


if __name__ == "__main__":
    main()
