"""An engine in another process: the protocol, and both ends of it."""
