"""Data sets of noise, in the formats of real ones."""

from pathlib import Path

import numpy as np

PIXELS = 48 * 48
VOTED = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
USAGES = ("Training", "PublicTest", "PrivateTest")


def noise(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 48, 48), dtype=np.uint8)


def face_text(face: np.ndarray) -> str:
    return " ".join(map(str, face.ravel().tolist()))


def fer2013_rows() -> list[tuple[str, str, str]]:
    """Emotion, pixels, Usage: each emotion twice in Training, once in the other two."""
    keys = [(emotion, usage) for usage in (*USAGES[:1], *USAGES) for emotion in range(7)]
    faces = noise(len(keys))
    return [
        (str(emotion), face_text(face), usage)
        for (emotion, usage), face in zip(keys, faces, strict=True)
    ]


def write_fer2013(path: Path, rows: list[tuple[str, str, str]] | None = None) -> Path:
    lines = ["emotion,pixels,Usage", *map(",".join, fer2013_rows() if rows is None else rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_ferplus(path: Path, votes: list[tuple[str, dict[str, int]]]) -> Path:
    lines = ["Usage,Image name," + VOTED]
    for index, (usage, counts) in enumerate(votes):
        columns = [str(counts.get(name, 0)) for name in VOTED.split(",")]
        lines.append(",".join((usage, f"fer{index:07d}.png", *columns)))
    path.write_text("\n".join(lines) + "\n")
    return path
