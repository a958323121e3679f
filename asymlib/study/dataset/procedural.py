"""Images drawn by rule: texture, edges, gradients, occlusion and text, which autoencoders damage most. No licence but
ours, as many as wanted, and nothing to download."""

import string

import cv2
import numpy as np

FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)


def procedural_image(size: int, rng: np.random.Generator) -> np.ndarray:
    """One picture: a textured gradient, shapes that occlude one another, and two lines of text.

    Args:
        size: Side in pixels.
        rng: Source of randomness; the same state gives the same picture.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    canvas = _gradient(size, rng) + 40 * rng.random() * _texture(size, rng)[..., None]
    canvas = np.ascontiguousarray(canvas.clip(0, 255).astype(np.uint8))
    for _ in range(rng.integers(3, 9)):
        _shape(canvas, rng)
    for _ in range(2):
        _text(canvas, rng)
    # a camera's softness and noise, so that the pictures are not easier than photographs in these respects
    soft = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.8)).astype(np.float32)
    return (soft + rng.normal(0, rng.uniform(0, 4), soft.shape)).clip(0, 255).round().astype(np.uint8)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    return tuple(int(c) for c in rng.integers(0, 256, 3))


def _gradient(size: int, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    t = (0.5 + x * np.cos(angle) + y * np.sin(angle)).clip(0, 1)[..., None]
    return (1 - t) * np.array(_colour(rng)) + t * np.array(_colour(rng))


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise at a few scales plus, half of the time, a stripe pattern; about -1 to 1."""
    texture = np.zeros((size, size), np.float32)
    for cell in (2, 8, 24):
        coarse = rng.normal(size=(size // cell + 2,) * 2).astype(np.float32)
        texture += rng.uniform(0, 0.5) * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        y, x = np.mgrid[0:size, 0:size]
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 20)
        texture += np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period).astype(np.float32)
    return texture


def _shape(canvas: np.ndarray, rng: np.random.Generator) -> None:
    size = len(canvas)
    centre, extent = rng.integers(0, size, 2), rng.integers(size // 12, size // 3, 2)
    layer = np.zeros((size, size), np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(layer, centre.tolist(), extent.tolist(), float(rng.uniform(0, 180)), 0, 360, 1, -1, cv2.LINE_8)
    else:
        corners = centre + rng.uniform(-1, 1, (rng.integers(3, 6), 2)) * extent
        cv2.fillPoly(layer, [cv2.convexHull(corners.astype(np.int32))], 1)
    fill = _gradient(size, rng) + rng.choice([0, 30]) * _texture(size, rng)[..., None]
    canvas[layer > 0] = fill.clip(0, 255).astype(np.uint8)[layer > 0]


def _text(canvas: np.ndarray, rng: np.random.Generator) -> None:
    size = len(canvas)
    words = "".join(rng.choice(list(string.ascii_letters + string.digits + "   "), rng.integers(4, 12)))
    height = rng.uniform(0.35, 1.0) * max(size, 64) / 128
    origin = (int(rng.integers(0, size // 2)), int(rng.integers(size // 8, size)))
    cv2.putText(
        canvas, words, origin, int(rng.choice(FONTS)), height, _colour(rng), int(rng.integers(1, 3)), cv2.LINE_AA
    )
