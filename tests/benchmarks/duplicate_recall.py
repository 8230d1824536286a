"""How many planted copies of photographs and sentences are found, and how many distinct ones are taken for copies.

python -m tests.benchmarks.duplicate_recall IMAGES      a folder of photographs, no two of them alike
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data_engine.decode import decode_image
from data_engine.quality.perceptual import distance, near_pairs_within, perceptual_hash
from data_engine.quality.texts import overlap, shingles, similar_texts

DISTANCES = (4, 6, 8)
Change = Callable[[np.ndarray], np.ndarray]
VERBS = ["shows", "holds", "watches", "follows", "paints", "carries", "crosses", "leaves", "guards", "mends", "counts"]
NOUNS = ["river", "harbour", "market", "bicycle", "lantern", "orchard", "bridge", "tower", "ferry", "garden", "engine"]
WAYS = ["slowly", "quietly", "twice", "again", "together", "early", "gladly", "alone", "at dusk", "in winter"]
SYNONYMS = {"shows": "displays", "holds": "keeps", "river": "stream", "market": "bazaar", "bridge": "crossing"}


def jpeg(quality: int) -> Change:
    def change(image: np.ndarray) -> np.ndarray:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=quality)
        return decode_image(stream.getvalue())

    return change


def resized(share: float) -> Change:
    def change(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        size = max(8, round(width * share)), max(8, round(height * share))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    return change


def cropped(share: float) -> Change:
    """Cuts this share of each side off, half at either end."""

    def change(image: np.ndarray) -> np.ndarray:
        top, left = (round(side * share / 2) for side in image.shape[:2])
        return image[top : image.shape[0] - top, left : image.shape[1] - left]

    return change


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(np.float32) * 1.2, 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "re-encoded, JPEG quality 50": jpeg(50),
    "re-encoded, JPEG quality 20": jpeg(20),
    "half the size": resized(0.5),
    "20 % brighter": brighter,
    "cropped by 2 % of each side": cropped(0.02),
    "cropped by 5 %": cropped(0.05),
    "cropped by 10 %": cropped(0.10),
    "mirrored": lambda image: image[:, ::-1],
}


def look(image: np.ndarray) -> int:
    """Of a picture that is no plain area."""
    found = perceptual_hash(image)
    assert found is not None
    return found


def picture_recall(images: list[np.ndarray]) -> tuple[dict[str, list[float]], list[int]]:
    """({change: share found at each of DISTANCES}, distinct pairs that are taken for copies at each)."""
    hashes = [look(image) for image in images]
    shares = {}
    for name, change in CHANGES.items():
        apart = [
            distance(known, look(np.ascontiguousarray(change(image))))
            for known, image in zip(hashes, images, strict=True)
        ]
        shares[name] = [float(np.mean([bits <= limit for bits in apart])) for limit in DISTANCES]
    every = np.array(hashes, np.uint64)
    return shares, [len(near_pairs_within(every, limit)) for limit in DISTANCES]


def sentences(random: np.random.Generator, count: int) -> list[str]:
    """Texts of five sentences of made-up content."""

    def sentence() -> str:
        verb, way = random.choice(VERBS), random.choice(WAYS)
        one, two, three = random.choice(NOUNS, 3)
        return f"The {one} near the old {two} {verb} a {three} {way}."

    return [" ".join(sentence() for _ in range(5)) for _ in range(count)]


def reworded(text: str, share: float, random: np.random.Generator) -> str:
    """A paraphrase word by word: this share of the words becomes another one."""
    return " ".join(
        SYNONYMS.get(word, str(random.choice(NOUNS))) if random.random() < share else word for word in text.split()
    )


def text_recall(threshold: float, count: int = 300) -> tuple[dict[float, float], int]:
    """({share of words changed: share of paraphrases found}, distinct pairs taken for copies)."""
    random = np.random.default_rng(0)
    originals = sentences(random, count)
    found = {}
    for share in (0.0, 0.02, 0.05, 0.1, 0.2):
        changed = [reworded(text, share, random) for text in originals]
        pairs = set(similar_texts([*originals, *changed], threshold))
        found[share] = sum((row, row + count) in pairs for row in range(count)) / count
    return found, len(similar_texts(originals, threshold))


def main() -> None:
    images = [decode_image(file.read_bytes()) for file in sorted(Path(sys.argv[1]).glob("*.jpg"))]
    shares, wrong = picture_recall(images)
    sys.stdout.write(f"| {len(images)} photographs | " + " | ".join(f"{limit} bits" for limit in DISTANCES) + " |\n")
    for name, found in shares.items():
        sys.stdout.write(f"| {name} | " + " | ".join(f"{share:.1%}" for share in found) + " |\n")
    pairs = len(images) * (len(images) - 1) // 2
    sys.stdout.write(f"| wrong among {pairs} pairs | " + " | ".join(map(str, wrong)) + " |\n\n")
    for threshold in (0.5, 0.7):
        found, wrong_texts = text_recall(threshold)
        cells = " | ".join(f"{share:.1%}" for share in found.values())
        sys.stdout.write(f"| overlap {threshold} | {cells} | {wrong_texts} |\n")
    sample = sentences(np.random.default_rng(1), 2)
    sys.stdout.write(f"\noverlap of two distinct texts, for example: {overlap(*map(shingles, sample)):.2f}\n")


if __name__ == "__main__":
    main()
