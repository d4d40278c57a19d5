"""An engine in another process: the protocol, its client and its server."""
