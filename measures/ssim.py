"""SSIM and MS-SSIM of planes, in NumPy.

SSIM: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE TIP 13(4), 2004: Gaussian window of 11×11, σ 1.5, K1 0.01, K2 0.03, population covariance, and the mean over the
positions where the whole window lies inside the picture.

MS-SSIM: Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar 2003:
five scales, weights of its table 1, contrast-structure means of the first four and SSIM of the last.  Scales follow
from 2×2 means; an odd side first gets a line of zeros in front, as in the implementation that most papers used.
"""

from __future__ import annotations

import numpy as np

RADIUS = 5
_TAPS = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / 1.5) ** 2)
_TAPS /= _TAPS.sum()
K1, K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

SSIM_SIDE = 2 * RADIUS + 1  # smallest side for SSIM
MS_SSIM_SIDE = 2 * RADIUS * 2 ** (len(SCALE_WEIGHTS) - 1) + 1  # 161: the last scale must hold one window

STRIP_SAMPLES = 8192  # a strip's twenty arrays of this size stay in a core's cache, which doubles the speed


def ssim(reference: np.ndarray, distorted: np.ndarray, peak: int = 255) -> float | None:
    """SSIM of two planes of one shape (H, W), integers up to ``peak``, in -1…1. None under 11 lines or columns."""
    return None if min(reference.shape) < SSIM_SIDE else _means(reference, distorted, peak)[0]


def ssim_and_ms_ssim(reference: np.ndarray, distorted: np.ndarray, peak: int = 255
                     ) -> tuple[float | None, float | None]:
    """SSIM and MS-SSIM of two planes of one shape (H, W), integers up to ``peak``. In -1…1; MS-SSIM in 0…1.

    SSIM is None under 11 lines or columns, MS-SSIM under 161.
    """
    if min(reference.shape) < SSIM_SIDE:
        return None, None
    first, contrast = _means(reference, distorted, peak)
    if min(reference.shape) < MS_SSIM_SIDE:
        return first, None
    last, product = first, 1.0
    for weight in SCALE_WEIGHTS[:-1]:
        product *= max(contrast, 0.0) ** weight
        reference, distorted = _halve(reference), _halve(distorted)
        last, contrast = _means(reference, distorted, peak)
    return first, float(product * max(last, 0.0) ** SCALE_WEIGHTS[-1])


def _means(x: np.ndarray, y: np.ndarray, peak: int) -> tuple[float, float]:
    """Mean SSIM and mean of its contrast-structure factor, over all positions of the window. Works strip by strip."""
    rows, columns = x.shape[0] - 2 * RADIUS, x.shape[1] - 2 * RADIUS
    step = min(max(STRIP_SAMPLES // columns, 8), 64)
    total_ssim = total_contrast = 0.0
    for top in range(0, rows, step):
        strip = slice(top, top + step + 2 * RADIUS)
        one, contrast = _sums(x[strip], y[strip], (K1 * peak) ** 2, (K2 * peak) ** 2)
        total_ssim += one
        total_contrast += contrast
    return total_ssim / (rows * columns), total_contrast / (rows * columns)


def _sums(x: np.ndarray, y: np.ndarray, c1: float, c2: float) -> tuple[float, float]:
    """The sums of which :func:`_means` makes means, for one strip.

    Only the sum of the two variances is ever needed, so four planes are filtered and not five.  In float64 the
    differences of squares keep ten digits; in float32 they would keep three.
    """
    planes = np.empty((4, *x.shape))
    planes[0], planes[1] = x, y
    np.multiply(planes[0], planes[1], out=planes[2])
    np.square(planes[0], out=planes[3])
    planes[3] += np.square(planes[1])
    mean_x, mean_y, mean_xy, mean_squares = _filter(_filter(planes, 1), 2)
    product = mean_x * mean_y
    squares = np.square(mean_x, out=mean_x)
    squares += np.square(mean_y, out=mean_y)
    contrast = (2 * (mean_xy - product) + c2) / (mean_squares - squares + c2)
    ssim = (2 * product + c1) / (squares + c1) * contrast
    return float(ssim.sum()), float(contrast.sum())


def _filter(planes: np.ndarray, axis: int) -> np.ndarray:
    """The Gaussian along one axis, only where it fits; its two halves are equal, so pairs are added before weighing."""
    size = planes.shape[axis] - 2 * RADIUS
    taps = [planes[:, i : i + size] if axis == 1 else planes[:, :, i : i + size] for i in range(2 * RADIUS + 1)]
    result = taps[RADIUS] * _TAPS[RADIUS]
    pair = np.empty_like(result)
    for i in range(RADIUS):
        np.add(taps[i], taps[-1 - i], out=pair)
        pair *= _TAPS[i]
        result += pair
    return result


def _halve(plane: np.ndarray) -> np.ndarray:
    """2×2 means; an odd side gets a line of zeros in front (and its last line pairs up)."""
    padded = np.pad(plane, [(side % 2, 0) for side in plane.shape]).astype(np.float64, copy=False)
    rows = padded[0::2] + padded[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]) * 0.25
