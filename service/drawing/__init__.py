"""Renders explanations as pictures."""
