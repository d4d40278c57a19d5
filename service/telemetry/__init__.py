"""Metrics, logs and request ids: what an operator sees."""
