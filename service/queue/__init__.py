"""The batched queue in front of an engine."""
