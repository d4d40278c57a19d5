"""Creates the engine that the settings name.

Only a process that does so imports torch, which takes seconds and a few hundred MB.
"""

import logging

from service.config import Settings
from service.engine.contract import Engine
from service.engine.prior import Priors

_log = logging.getLogger(__name__)


def open_engine(settings: Settings) -> Engine:
    """Load the checkpoint onto its device. Blocks for seconds.

    Args:
        settings: Name checkpoint, device and sizes.

    Returns:
        The engine, not warm yet.

    Raises:
        CheckpointError: The file cannot be used.
        EngineError: The device is not available.
        SettingsError: FER_PRIOR does not fit the checkpoint.
    """
    from service.engine.cuda.engine import CudaEngine
    from service.engine.torch_engine import TorchEngine, find_device
    from training.model.checkpoint import load_checkpoint

    checkpoint, device = load_checkpoint(settings.checkpoint), str(find_device(settings.device))
    Priors(checkpoint.manifest, settings.prior)  # refused here, before anything listens
    sizes = settings.max_batch, settings.torch_threads
    engine = (
        CudaEngine(checkpoint, device, *sizes, settings.precision, settings.gpu_memory)
        if device.startswith("cuda")
        else TorchEngine(checkpoint, device, *sizes)
    )
    _log.info("the network computes in %s on %s", engine.precision, engine.device)
    return engine
