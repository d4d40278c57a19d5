"""C functions for the parts of the network that torch computes too slowly on an x86-64 CPU.

If there is a C compiler, `make serve` compiles the C files in this folder twice: for AVX2 and for
AVX-512. Without the compiled files, or on another kind of CPU, torch's own modules compute the
network.
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
"""The folder of the compiled kernels."""
# The instruction sets that the kernels are compiled for, by torch's names, widest first. A CPU that
# supports one of them supports those after it as well.
_CAPABILITIES = ("AVX512", "AVX2")


@dataclass(frozen=True)
class Kernels:
    """The C functions, compiled for one instruction set.

    Attributes:
        library: Has `winograd`, `im2col`, `attend` and `sample`. For the first three it also has a
            function that returns how many floats of scratch memory they need.
        lanes: Floats in one vector.
    """

    library: ctypes.CDLL
    lanes: int

    @property
    def panel(self) -> int:
        """Output channels whose weights are stored together, as in products.h."""
        return 2 * self.lanes


@cache
def kernels() -> Kernels | None:
    """Load the kernels for the widest instruction set of this CPU; None if no kernels load.

    Logs which file was loaded, and which files could not be loaded.
    """
    for path in files():
        try:
            found = load(path)
        except (OSError, AttributeError, ValueError) as error:  # missing, or from older source
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
    """Return the paths of all kernels that this CPU can run, widest first, compiled or not.

    Torch's variable ATEN_CPU_CAPABILITY limits them in the same way as torch's own kernels.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in _CAPABILITIES:
        return []
    suited = _CAPABILITIES[_CAPABILITIES.index(capability) :]
    return [FOLDER / f"libkernels-{name.lower()}.so" for name in suited]


def load(path: Path) -> Kernels:
    """Load a file of compiled kernels; the CPU must support their instruction set.

    Args:
        path: One of `files`.

    Raises:
        OSError: The file is missing, or was compiled for another system.
        AttributeError, ValueError: The file was compiled from older source.
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
    """Return features in the memory layout that the library reads: channels last.

    Args:
        features: float32[n, channels, height, width].
        channels: The expected number of channels.
        height: The expected height.
        width: The expected width.

    Returns:
        The same tensor if it has this layout already, otherwise a copy.

    Raises:
        ValueError: The features have another size or dtype.
    """
    if features.shape[1:] != (channels, height, width) or features.dtype != torch.float32:
        raise ValueError(f"features are {features.dtype}{list(features.shape)}")
    return features.contiguous(memory_format=torch.channels_last)


def activation_number(activation: nn.Module | None) -> int | None:
    """Return an activation's number in lanes.h; None if lanes.h does not have the activation."""
    if activation is None:
        return 0
    if isinstance(activation, nn.ReLU):
        return 1
    return 2 if isinstance(activation, nn.GELU) and activation.approximate == "none" else None
