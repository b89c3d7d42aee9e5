from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from srquant.images.metrics import luma, psnr, ssim, ssim_adabm
from srquant.support.errors import ArgumentError


def pair(seed: int, height: int = 40, width: int = 53) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    noisy = reference + rng.normal(0, 12, reference.shape)
    return noisy.clip(0, 255).astype(np.uint8), reference


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_image(seed: int) -> None:
    image, reference = pair(seed)
    x, y = luma(image).numpy(), luma(reference).numpy()
    assert psnr(image, reference) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=255), abs=1e-9)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(y, x, data_range=255, **window)
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_adabm_dialect_against_an_independent_filter(seed: int) -> None:
    """Luma without offset, Gaussian of σ = 1.5 cut at 5 pixels, borders replicated."""
    image, reference = pair(seed)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    x, y = image @ weights, reference @ weights

    def blur(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, mode="nearest", radius=5)

    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    # Replicating luma and filtering inside is filtering with nearest borders, products included.
    assert ssim_adabm(image, reference) == pytest.approx(expected, abs=1e-9)


def test_the_two_dialects_agree_to_the_third_decimal() -> None:
    y, x = np.mgrid[0:120, 0:160]
    smooth = np.stack([128 + 90 * np.sin(x / 9 + c) * np.cos(y / 7) for c in range(3)], -1)
    noise = np.random.default_rng(0).normal(0, 5, smooth.shape)
    reference, image = (v.clip(0, 255).astype(np.uint8) for v in (smooth, smooth + noise))
    assert abs(ssim(image, reference) - ssim_adabm(image, reference)) < 5e-3


def test_luma_of_primaries() -> None:
    """BT.601: black 16, white 235, red 81.481."""
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8)
    np.testing.assert_allclose(luma(pixels)[0].numpy(), [16, 235, 81.481], atol=1e-9)
    np.testing.assert_allclose(luma(pixels, offset=False)[0].numpy(), [0, 219, 65.481], atol=1e-9)


def test_psnr_by_hand() -> None:
    """All values off by 10: luma is off by 10·219/255, so MSE = 73.757 and PSNR = 29.45 dB."""
    reference = np.full((16, 16, 3), 100, np.uint8)
    assert psnr(reference + 10, reference) == pytest.approx(10 * math.log10(255**2 / (10 * 219 / 255) ** 2))


def test_ssim_by_hand() -> None:
    """Two flat images have no variance: SSIM = (2·mx·my + c1)/(mx² + my² + c1)."""
    reference = np.full((16, 16, 3), 100, np.uint8)
    x, y = (float(luma(image)[0, 0]) for image in (reference + 50, reference))
    c1 = (0.01 * 255) ** 2
    assert ssim(reference + 50, reference) == pytest.approx((2 * x * y + c1) / (x * x + y * y + c1))


def test_identical_images_are_infinitely_alike() -> None:
    image, _ = pair(0)
    assert psnr(image, image.copy()) == math.inf
    assert ssim(image, image.copy()) == pytest.approx(1)
    assert ssim_adabm(image, image.copy()) == pytest.approx(1)


def test_bad_shapes_are_refused() -> None:
    image, reference = pair(0)
    with pytest.raises(ArgumentError, match="must both be h w 3"):
        psnr(image[:-1], reference)
    with pytest.raises(ArgumentError, match="at least 11x11"):
        ssim(image[:10, :10], reference[:10, :10])
