"""Resizing of 210 x 160 grey screens to 84 x 84 frames by the two rules of papers, in integer arithmetic."""

from functools import cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

SIZE = 84
Frames = NDArray[np.uint8]
BITS = 11  # OpenCV's precision of the weights of linear interpolation


def resize_area(screens: Frames) -> Frames:
    """Average the pixels that each of 84 x 84 cells covers, by the share covered (OpenCV's INTER_AREA).

    [B, height, width] to [B, 84, 84]. Shares are whole numbers over a common denominator, so that every machine
    gives equal bytes; halves are rounded to even.
    """
    rows, row_weights = _cells(screens.shape[1])
    columns, column_weights = _cells(screens.shape[2])
    wide = sum(
        screens.take(places, axis=1) * weights[:, None] for places, weights in zip(rows, row_weights, strict=True)
    )
    total = sum(wide.take(places, axis=2) * weights for places, weights in zip(columns, column_weights, strict=True))
    whole = row_weights[:, 0].sum() * column_weights[:, 0].sum()
    quotient, rest = np.divmod(total, whole)
    up = (2 * rest > whole) | ((2 * rest == whole) & (quotient % 2 == 1))
    frames: Frames = (quotient + up).astype(np.uint8)
    return frames


def resize_linear(screens: Frames) -> Frames:
    """Interpolate between the four pixels nearest to each cell's centre (OpenCV's INTER_LINEAR on bytes).

    [B, height, width] to [B, 84, 84], with OpenCV's fixed-point arithmetic: weights of 11 bits, two roundings.
    """
    rows, row_weights = _neighbours(screens.shape[1])
    columns, column_weights = _neighbours(screens.shape[2])
    near = screens.take(rows.ravel(), axis=1).take(columns.ravel(), axis=2).astype(np.int32) * column_weights.ravel()
    wide = near[:, :, :SIZE] + near[:, :, SIZE:] >> 4
    above, below = wide[:, :SIZE], wide[:, SIZE:]
    total = (above * row_weights[0][:, None] >> 16) + (below * row_weights[1][:, None] >> 16)
    frames: Frames = (total + 2 >> 2).astype(np.uint8)
    return frames


def grey_frames(screens: Frames) -> Frames:
    """Return frames [B, 84, 84] of screens, grey [B, height, width] or coloured [B, height, width, 3]."""
    if screens.ndim == 4:
        # Grey of the emulator's palette and of OpenCV (ITU-R BT.601), rounded.
        screens = np.rint(screens @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return screens if screens.shape[1:] == (SIZE, SIZE) else resize_area(screens)


@cache
def _cells(length: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the pixels [K, 84] that each of 84 cells of an axis covers, and the integer share of each, [K, 84]."""
    unit = gcd(length, SIZE)
    step, pixel = length // unit, SIZE // unit  # a cell is `step` long where a pixel is `pixel` long
    begin = np.arange(SIZE) * step
    first = begin // pixel
    places = first + np.arange(-(-step // pixel) + 1)[:, None]
    covered = np.minimum((places + 1) * pixel, begin + step) - np.maximum(places * pixel, begin)
    return places.clip(max=length - 1), covered.clip(min=0).astype(np.int32)


@cache
def _neighbours(length: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the two pixels [2, 84] on both sides of each cell's centre, and their weights of 11 bits."""
    centre = (np.arange(SIZE, dtype=np.float64) + 0.5) * (length / SIZE) - 0.5
    below = np.floor(centre).astype(np.int64)
    share = (centre - below).astype(np.float32)
    share[(below < 0) | (below >= length - 1)] = 0
    places = np.stack([below, below + 1]).clip(0, length - 1)
    weights = np.rint(np.stack([1 - share, share]) * np.float32(2**BITS)).astype(np.int32)
    return places, weights
