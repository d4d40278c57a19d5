"""Clients of the service: `Client` and `AsyncClient` for programs, the command `fer` for people.

Imports nothing of the server: httpx and the standard library, and Pillow to draw, or for a caller
who gives a picture of Pillow or an array.
"""

from service.client.answers import Box, ExplainedFace, Explanation, Face, Failure, Prediction
from service.client.api import AsyncClient, Client

__all__ = [
    "AsyncClient",
    "Box",
    "Client",
    "ExplainedFace",
    "Explanation",
    "Face",
    "Failure",
    "Prediction",
]
