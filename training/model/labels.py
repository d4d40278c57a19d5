"""The emotions and their order. Readers of data files map their own order to this one."""

from typing import Final

FER2013_EMOTIONS: Final[tuple[str, ...]] = (
    "anger",
    "disgust",
    "fear",
    "happiness",
    "sadness",
    "surprise",
    "neutral",
)
"""The seven of FER2013 (Goodfellow et al. 2013), in the order of its `emotion` column."""

FERPLUS_EMOTIONS: Final[tuple[str, ...]] = (*FER2013_EMOTIONS, "contempt")
"""The eight of FER+ (Barsoum et al. 2016): FER2013's seven, in the same places, and contempt."""
