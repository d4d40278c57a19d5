"""The shipped checkpoint, made by `training`; data, no code."""
