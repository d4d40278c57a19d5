"""What keeps an engine from being built; apart from engines, which load torch.

Not its duty: what happens to requests (`service.errors`).
"""


class EngineError(Exception):
    """The engine cannot be built as asked; the message says what to change."""
