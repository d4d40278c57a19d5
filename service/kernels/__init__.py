"""What torch's operators do not do fast enough on an x86-64 CPU, in C.

`make serve` compiles the C files beside this one where there is a C compiler, once for AVX2 and
once for AVX-512. Without them, or on another CPU, the network runs as torch's own modules.
"""

import ctypes
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
"""Where the compiled kernels lie."""
_CAPABILITIES = ("AVX512", "AVX2")
"""What they are compiled for, as torch calls it; a CPU that has one has those behind it as well."""


@dataclass(frozen=True)
class Kernels:
    """The functions in C, as one CPU runs them.

    Attributes:
        library: Has `winograd`, `im2col` and `attend`, and what scratch each needs.
        lanes: Floats in a vector; a convolution's input channels come in multiples of them.
    """

    library: ctypes.CDLL
    lanes: int

    @property
    def panel(self) -> int:
        """Output channels whose weights lie side by side; as in products.h."""
        return 2 * self.lanes


@cache
def kernels() -> Kernels | None:
    """Return the widest kernels that this CPU can run; None where there are none.

    What it took, and what it would have taken, is logged.
    """
    for path in files():
        try:
            found = load(path)
        except (OSError, AttributeError, ValueError) as error:  # not there, or of older source
            _log.warning(
                "the network takes longer than it could: %s; with a C compiler, `make serve` or "
                "compile.sh beside it makes it anew",
                error,
            )
        else:
            _log.info("the network's kernels in C are those of %s", path.name)
            return found
    _log.info("the network runs without kernels in C, by torch's own modules")
    return None


def files() -> list[Path]:
    """Return where the kernels for this CPU lie if they are compiled, the widest first.

    ATEN_CPU_CAPABILITY, a setting of torch's, narrows them as it narrows torch's own.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in _CAPABILITIES:
        return []
    suited = _CAPABILITIES[_CAPABILITIES.index(capability) :]
    return [FOLDER / f"libkernels-{name.lower()}.so" for name in suited]


def load(path: Path) -> Kernels:
    """Load compiled kernels, on a CPU that has such vectors.

    Raises:
        OSError: The file is not there, or of another system.
        AttributeError, ValueError: It was compiled of an older source.
    """
    library = ctypes.CDLL(str(path))
    integer, size, pointer, real = ctypes.c_int, ctypes.c_long, ctypes.c_void_p, ctypes.c_float
    for needed in (library.winograd_scratch, library.im2col_scratch, library.attend_scratch):
        needed.restype = size
    library.winograd_scratch.argtypes = [integer, size, size]
    library.winograd.argtypes = [integer, *[pointer] * 5, *[size] * 5, integer]
    library.im2col_scratch.argtypes = [size] * 3
    library.im2col.argtypes = [*[pointer] * 5, *[size] * 8, integer]
    library.attend_scratch.argtypes = [size] * 4
    library.attend.argtypes = [*[pointer] * 4, *[size] * 5, *[pointer] * 5, real, integer]
    library.sample.argtypes = [*[pointer] * 4, *[size] * 3]
    for function in (library.winograd, library.im2col, library.attend, library.sample):
        function.restype = None
    return Kernels(library, integer.in_dll(library, "lanes").value)


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
