"""The error of a failed engine start; in its own module, since engines import torch."""


class EngineError(Exception):
    """The engine cannot be created as configured; the message says what to change."""
