"""The request half of attention-fer: from a picture over HTTP to the emotions in it."""

from typing import Final

__version__: Final = "0.2.0"
"""The release. Package, API document, image labels and citation take their version from here."""
