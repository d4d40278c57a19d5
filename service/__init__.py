"""The serving half of attention-fer: recognises emotions in pictures, over HTTP."""

from typing import Final

__version__: Final = "0.2.0"
"""The release. Package, API document, image labels and citation take their version from here."""
