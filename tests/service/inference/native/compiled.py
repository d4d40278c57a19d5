"""What marks a test of the library in C."""

import pytest

from service.inference.native import library

compiled = pytest.mark.skipif(
    library() is None,
    reason="libnative.so is not compiled (make setup, with a C compiler), or not for this CPU",
)
