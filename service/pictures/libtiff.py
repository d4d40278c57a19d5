"""Keeps libtiff from writing to the service's log.

It prints what it finds wrong with a file to standard error: lines that a client causes, as many as
it likes, in the midst of ours. Pillow silences its warnings alone. Not its duty: reading TIFF.
"""

import ctypes
from pathlib import Path

_MAPS = Path("/proc/self/maps")


def silence_libtiff() -> bool:
    """Take the error handler from the libtiff that Pillow has loaded, for the whole process.

    What is wrong is still told by what Pillow raises.

    Returns:
        Whether there is one. Where libraries cannot be listed, it goes on printing.
    """
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return False
    paths = {line.split(maxsplit=5)[5] for line in lines if "/libtiff" in line}
    for path in paths:
        library = ctypes.CDLL(path)  # loaded already: the same one
        for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
    return bool(paths)
