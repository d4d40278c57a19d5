"""What torch's operators do not do fast enough on a CPU with AVX2, in C.

`make serve` compiles the C files beside this one to `libkernels.so` where there is a C compiler.
Without it, or on another CPU, `service.engine.cpu.fused` computes all with torch's operators.
"""

import ctypes
import logging
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

LANES, PANEL = 8, 16
"""As in lanes.h and products.h: channels come in multiples of them."""
_LIBRARY = Path(__file__).with_name("libkernels.so")


@cache
def library() -> ctypes.CDLL | None:
    """Return the library; None where it was not compiled, or not for such a CPU."""
    capabilities = torch.cpu.get_capabilities()
    able = all(capabilities.get(name, False) for name in ("avx2", "fma3"))
    if not able:
        return None
    try:
        return _declared(ctypes.CDLL(str(_LIBRARY)))
    except (OSError, AttributeError) as error:  # not there, of another system, of older source
        _log.warning(
            "the network takes twice as long as it could: %s; with a C compiler, `make serve` or "
            "compile.sh beside it makes it anew",
            error,
        )
        return None


def _declared(native: ctypes.CDLL) -> ctypes.CDLL:
    integer, size, pointer, real = ctypes.c_int, ctypes.c_long, ctypes.c_void_p, ctypes.c_float
    for needed in (native.winograd_scratch, native.im2col_scratch, native.attend_scratch):
        needed.restype = size
    native.winograd_scratch.argtypes = [integer, size, size]
    native.winograd.argtypes = [integer, *[pointer] * 5, *[size] * 5, integer]
    native.im2col_scratch.argtypes = [size] * 3
    native.im2col.argtypes = [*[pointer] * 5, *[size] * 8, integer]
    native.attend_scratch.argtypes = [size] * 4
    native.attend.argtypes = [*[pointer] * 4, *[size] * 5, *[pointer] * 5, real, integer]
    native.winograd.restype = native.im2col.restype = native.attend.restype = None
    return native


def computes_wider() -> bool:
    """Tell whether this CPU has lanes for twice as many floats, which oneDNN uses and this not.

    Multiplying less still gains there; multiplying as much does not.
    """
    return bool(torch.cpu.get_capabilities().get("avx512_f", False))


def as_read(features: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Return features float32[n, channels, height, width] as they lie in memory for the library.

    Raises:
        ValueError: They are of another size or dtype.
    """
    if features.shape[1:] != (channels, height, width) or features.dtype != torch.float32:
        raise ValueError(f"features are {features.dtype}{list(features.shape)}")
    return features.contiguous(memory_format=torch.channels_last)


def activation_number(activation: nn.Module | None) -> int | None:
    """Return what lanes.h calls an activation; None where it does not have it."""
    if activation is None:
        return 0
    if isinstance(activation, nn.ReLU):
        return 1
    return 2 if isinstance(activation, nn.GELU) and activation.approximate == "none" else None
