"""From faces to probabilities."""
