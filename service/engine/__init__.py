"""The engine: a checkpoint on a device."""
