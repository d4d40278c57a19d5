"""From bytes to faces."""
