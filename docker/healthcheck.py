"""The container's health: exits with 0 while the service takes traffic, else with 1.

With the standard library alone, and nothing of the service: it runs every few seconds.
"""

import http.client
import os
import sys

TIMEOUT_S = 4.0  # below the timeout of the HEALTHCHECK that runs this


def is_ready(port: int) -> bool:
    """Return whether the service on this host says that it is ready.

    Args:
        port: Where it listens.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(os.environ.get("FER_PORT", "8000"))) else 1)
