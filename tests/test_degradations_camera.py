"""Noise, blur, JPEG and resizing: equal to their references, and made again from their numbers."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import generator
from PIL import Image
from safetensors.torch import load_file

from urushi.degradations.base import Degradation, draw_seeds, log_uniform, noise_field
from urushi.degradations.base import uniform_field as uniform_numbers
from urushi.degradations.blur import (
    DefocusBlur,
    GaussianBlur,
    MotionBlur,
    convolve,
    disc_kernels,
    gaussian_kernels,
    motion_paths,
    path_kernels,
)
from urushi.degradations.camera import CameraNoise
from urushi.degradations.develop import Develop
from urushi.degradations.jpeg import JPEGCompression, jpeg
from urushi.degradations.noise import GaussianNoise, PoissonNoise, SpeckleNoise
from urushi.degradations.resize import Downsample, resize
from urushi.errors import DegradationError

GOLDEN = Path(__file__).parent / "golden"

ALL = [
    GaussianNoise(),
    PoissonNoise(),
    PoissonNoise(peak=(3.0, 30.0)),
    SpeckleNoise(),
    CameraNoise(),
    Develop(),
    GaussianBlur(),
    DefocusBlur(),
    MotionBlur(shake_share=0.5),
    JPEGCompression(),
    Downsample(),
    Downsample(restore_size=True),
]


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A picture with the spectrum of natural ones, edges and colours; (1, 3, H, W), 8 bits."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / 128)
    cloud = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, 128, 128))) * fall).real
    cloud = 0.5 + 0.22 * (cloud + 0.8 * cloud[:1]) / cloud.std()
    y, x = np.mgrid[:128, :128]
    cloud[:, np.hypot(y - 40, x - 50) < 25] += np.array([[0.3], [-0.1], [-0.3]])
    cloud[:, (x + 2 * y) % 50 < 6] -= 0.25
    eight = np.round(np.clip(cloud, 0, 1) * 255).astype(np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray(eight[None, :, :height, :width]))


def ident(degradation: Degradation) -> str:
    return type(degradation).__name__


@pytest.mark.parametrize("degradation", ALL, ids=ident)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (21, 37), (5, 3)])
def test_range_size_and_determinism(degradation, height, width):
    images = torch.rand(4, 3, height, width, generator=generator(1))
    before = images.clone()
    parameters = degradation.sample((4, 3, height, width), generator())
    again = degradation.sample((4, 3, height, width), generator())
    assert parameters.keys() == again.keys()
    for name, values in parameters.items():
        assert len(values) == 4
        assert torch.equal(values, again[name])
    out = degradation.apply(images, parameters)
    assert torch.equal(out, degradation.apply(images, again))
    assert torch.equal(images, before), "the input must stay as it is"
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert not torch.equal(out, images)
    if not (isinstance(degradation, Downsample) and not degradation.restore_size):
        assert out.shape == images.shape


@pytest.mark.parametrize("degradation", ALL, ids=ident)
def test_one_row_makes_its_image_again(degradation):
    images = torch.cat([picture(40, 48, seed) for seed in range(4)])
    parameters = degradation.sample((4, 3, 40, 48), generator())
    together = degradation.apply(images, parameters)
    for row in range(4):
        own = {name: values[row : row + 1] for name, values in parameters.items()}
        alone = degradation.apply(images[row : row + 1], own)
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=2e-6)


@pytest.mark.parametrize("degradation", ALL, ids=ident)
def test_memory_layout_does_not_matter(degradation):
    images = torch.cat([picture(24, 40, seed) for seed in range(2)])
    parameters = degradation.sample((2, 3, 24, 40), generator())
    other = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        degradation.apply(other, parameters),
        degradation.apply(images, parameters),
        rtol=0,
        atol=2e-6,
    )


@pytest.mark.parametrize("degradation", ALL, ids=ident)
def test_names_and_references(degradation):
    assert degradation.name.replace("_", "").isalnum()
    assert "\n" not in degradation.reference
    assert degradation.reference


@pytest.mark.parametrize(
    ("make", "options", "names"),
    [
        (GaussianNoise, {"sigma_255": (-1.0, 5.0)}, "sigma_255"),
        (GaussianNoise, {"sigma_255": (9.0, 5.0)}, "sigma_255"),
        (GaussianNoise, {"sigma_255": (0.0, 256.0)}, "sigma_255"),
        (GaussianNoise, {"sigma_255": (0.0, math.nan)}, "sigma_255"),
        (GaussianNoise, {"grey_share": 1.1}, "grey_share"),
        (PoissonNoise, {"peak": (0.0, 10.0)}, "peak"),
        (PoissonNoise, {"grey_share": -0.1}, "grey_share"),
        (SpeckleNoise, {"sigma_255": (0.0, math.inf)}, "sigma_255"),
        (SpeckleNoise, {"grey_share": math.nan}, "grey_share"),
        (CameraNoise, {"shot": (0.0, 0.1)}, "shot"),
        (CameraNoise, {"gain": (0.5, 2.0)}, "gain"),
        (CameraNoise, {"smoothing": (0.0, 0.4)}, "smoothing"),
        (GaussianBlur, {"sigma": (0.0, 21.0)}, "sigma"),
        (GaussianBlur, {"sigma_elliptic": (-0.1, 2.0)}, "sigma_elliptic"),
        (GaussianBlur, {"elliptic_share": 2.0}, "elliptic_share"),
        (DefocusBlur, {"radius": (5.0, 31.0)}, "radius"),
        (MotionBlur, {"length": (0.5, 9.0)}, "length"),
        (MotionBlur, {"shake": (0.0, 1.5)}, "shake"),
        (MotionBlur, {"shake_share": -1.0}, "shake_share"),
        (JPEGCompression, {"quality": (0, 50)}, "quality"),
        (JPEGCompression, {"quality": (50, 101)}, "quality"),
        (JPEGCompression, {"subsampled_share": 7.0}, "subsampled_share"),
        (Downsample, {"scales": (1, 2)}, "scales"),
        (Downsample, {"scales": ()}, "scales"),
    ],
)
def test_bad_ranges_are_refused(make, options, names):
    with pytest.raises(DegradationError, match=names):
        make(**options)


def test_noise_field_is_white_normal_and_differs_by_seed():
    seeds = torch.tensor([0, 1, 2**31, 2**61 + 3])
    field = noise_field(seeds, (3, 101, 99), "cpu")
    assert field.shape == (4, 3, 101, 99)
    assert abs(field.mean().item()) < 0.01
    assert abs(field.std().item() - 1) < 0.01
    assert abs((field**4).mean().item() - 3) < 0.1
    own = torch.corrcoef(field.flatten(1))
    assert (own - torch.eye(4)).abs().max() < 0.03
    for step in (1, 2, 99):
        flat = field.flatten(1)
        assert abs((flat[:, step:] * flat[:, :-step]).mean().item()) < 0.02
    assert torch.equal(noise_field(seeds[2:3], (3, 101, 99), "cpu")[0], field[2])


def test_uniform_field_is_uniform_and_open():
    field = uniform_numbers(draw_seeds(8, generator()), (40, 50), "cpu")
    assert field.min() > 0
    assert field.max() < 1
    counts = torch.histc(field, bins=10, min=0, max=1)
    assert (counts / 1600 - 1).abs().max() < 0.1


def test_log_uniform_covers_its_range():
    drawn = log_uniform(1e2, 1e4, 4000, generator())
    assert drawn.min() >= 1e2
    assert drawn.max() <= 1e4
    assert abs((drawn < 1e3).float().mean().item() - 0.5) < 0.03


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_gaussian_noise_has_its_sigma_and_colour(grey):
    degradation = GaussianNoise(sigma_255=(25.0, 25.0), grey_share=grey)
    images = torch.full((4, 3, 64, 64), 0.5)
    noise = degradation.apply(images, degradation.sample((4, 3, 64, 64), generator())) - images
    assert abs(noise.std().item() * 255 - 25) < 0.5
    same = torch.equal(noise[:, 0], noise[:, 1])
    assert same == (grey == 1.0)


@pytest.mark.parametrize("rate", [0.4, 3.0, 9.5, 10.5, 60.0, 800.0])
def test_poisson_counts_follow_the_law(rate):
    peak = 1000.0
    degradation = PoissonNoise(peak=(peak, peak), grey_share=0.0)
    images = torch.full((2, 3, 128, 128), rate / peak)
    out = degradation.apply(images, degradation.sample((2, 3, 128, 128), generator()))
    counts = (out * peak).round()
    torch.testing.assert_close(out * peak, counts, rtol=0, atol=1e-3)
    number = counts.numel()
    assert abs(counts.mean().item() - rate) < 4 * math.sqrt(rate / number)
    assert abs(counts.var().item() / rate - 1) < 0.03
    k = torch.arange(1000, dtype=torch.float64)
    law = torch.exp(k * math.log(rate) - rate - torch.lgamma(k + 1))
    share = torch.bincount(counts.long().flatten(), minlength=1000)[:1000] / number
    assert (share - law).abs().max() < 0.005


def test_grey_poisson_keeps_hue_differences():
    degradation = PoissonNoise(peak=(100.0, 100.0), grey_share=1.0)
    images = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    out = degradation.apply(images, degradation.sample((1, 3, 64, 64), generator()))
    torch.testing.assert_close(out[:, 2] - out[:, 0], torch.full((1, 64, 64), 0.2))
    assert 0.05 < out[:, 1].std().item() < 0.09


def test_speckle_grows_with_the_signal():
    degradation = SpeckleNoise(sigma_255=(25.5, 25.5), grey_share=0.0)
    images = torch.full((1, 3, 64, 64), 0.2)
    images[..., 32:] = 0.6
    noise = degradation.apply(images, degradation.sample((1, 3, 64, 64), generator())) - images
    assert abs(noise[..., :32].std().item() - 0.02) < 0.001
    assert abs(noise[..., 32:].std().item() - 0.06) < 0.003


def test_kernels_sum_to_one_and_are_centred():
    sigma, zero = torch.tensor([0.0, 0.7, 3.0]), torch.zeros(3)
    paths = motion_paths(
        torch.tensor([5.0, 9.0, 25.0]), torch.tensor([0.3, 1.0, 2.0]), zero, torch.arange(3)
    )
    for kernels in (
        gaussian_kernels(sigma, sigma.flip(0), torch.tensor([0.0, 0.5, 1.0])),
        disc_kernels(torch.tensor([0.0, 2.0, 4.3])),
        path_kernels(paths),
    ):
        torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(3))
        torch.testing.assert_close(kernels, kernels.flip(1, 2), rtol=0, atol=1e-6)
        assert kernels.min() >= 0


def test_gaussian_kernel_has_its_variances_along_its_angle():
    kernel = gaussian_kernels(
        torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([math.pi / 6])
    )[0].double()
    y, x = torch.meshgrid(*[torch.arange(-9.0, 10.0).double()] * 2, indexing="ij")
    covariance = [(kernel * a * b).sum().item() for a, b in ((x, x), (y, y), (x, y))]
    # diag(9, 1) turned by 30 degrees; the cut takes a few percent
    assert covariance == pytest.approx([7.0, 3.0, 8 * math.sqrt(3) / 4], rel=0.05)


def test_motion_kernel_is_a_line_of_its_length_and_angle():
    straight = motion_paths(
        torch.tensor([11.0, 11.0]),
        torch.tensor([0.0, math.pi / 2]),
        torch.zeros(2),
        torch.arange(2),
    )
    kernels = path_kernels(straight)
    middle = kernels.shape[-1] // 2
    assert kernels[0, middle].sum().item() == pytest.approx(1.0, abs=1e-6)
    assert kernels[1, :, middle].sum().item() == pytest.approx(1.0, abs=1e-6)
    assert int((kernels[0, middle] > 0.05).sum()) == 11


def test_shaken_paths_are_curved_and_keep_their_extent():
    length = torch.full((16,), 20.0)
    paths = motion_paths(length, torch.zeros(16), torch.full((16,), 0.5), torch.arange(16))
    assert paths[..., 1].abs().amax(dim=1).median() > 1.0
    torch.testing.assert_close(2 * paths.norm(dim=2).amax(dim=1), length)


def test_convolution_equals_the_written_out_sum():
    images = torch.rand(2, 3, 9, 8, generator=generator())
    kernels = torch.rand(2, 5, 5, generator=generator(1))
    kernels /= kernels.sum(dim=(1, 2), keepdim=True)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    expected = np.zeros(images.shape, np.float32)
    for y in range(5):
        for x in range(5):
            window = padded[:, :, y : y + 9, x : x + 8]
            expected += window * kernels.numpy()[:, None, y : y + 1, x : x + 1]
    torch.testing.assert_close(convolve(images, kernels), torch.from_numpy(expected))


def test_convolution_of_a_picture_smaller_than_its_kernel():
    images = torch.rand(1, 3, 4, 1, generator=generator())
    kernels = disc_kernels(torch.tensor([8.0]))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (9, 9), (9, 9)), mode="reflect")
    out = convolve(images, kernels)
    first = (padded[:, :, :19, :19] * kernels.numpy()[:, None]).sum(axis=(2, 3))
    np.testing.assert_allclose(out[..., 0, 0].numpy(), first, atol=1e-6)


@pytest.mark.parametrize("radius", [0.0, 0.3])
def test_no_blur_where_the_parameter_is_zero(radius):
    images = picture(16, 16)
    none = GaussianBlur(sigma=(0.0, 0.0), elliptic_share=0.0)
    out = none.apply(images, none.sample((1, 3, 16, 16), generator()))
    torch.testing.assert_close(out, images, rtol=0, atol=1e-6)
    point = DefocusBlur(radius=(radius, radius))
    out = point.apply(images, point.sample((1, 3, 16, 16), generator()))
    torch.testing.assert_close(out, images, rtol=0, atol=1e-6)


def pillow(image: torch.Tensor, quality: int, subsampled: bool) -> torch.Tensor:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        file, "JPEG", quality=quality, subsampling=2 if subsampled else 0
    )
    with Image.open(file) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("subsampled", [True, False])
@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 95, 100])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (61, 83), (17, 18), (8, 20), (9, 3)])
def test_jpeg_equals_libjpeg(subsampled, quality, height, width):
    image = picture(height, width)
    ours = jpeg(image, torch.tensor([quality]), torch.tensor([subsampled]))[0]
    difference = (ours - pillow(image[0], quality, subsampled)).abs() * 255
    # Ours does libjpeg's arithmetic; another libjpeg may choose another transform.
    assert difference.mean() < 0.5
    assert (difference > 1.5).float().mean() < 0.02


def test_jpeg_takes_each_image_with_its_own_numbers():
    images = torch.cat([picture(40, 48, seed) for seed in range(3)])
    quality, subsampled = torch.tensor([10, 60, 90]), torch.tensor([True, False, True])
    together = jpeg(images, quality, subsampled)
    for row in range(3):
        alone = jpeg(images[row : row + 1], quality[row : row + 1], subsampled[row : row + 1])
        assert torch.equal(alone[0], together[row])
    torch.testing.assert_close((together * 255).round() / 255, together)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_resize_equals_golden(index):
    golden = load_file(GOLDEN / "imresize.safetensors")

    def image(key: str) -> torch.Tensor:
        return golden[f"img{index}.{key}"].permute(2, 0, 1)[None]

    cases = {f"down{s}": resize(image("input"), scale=1 / s) for s in (2, 3, 4)}
    if index == 0:
        cases["up2"] = resize(image("input"), scale=2.0)
        cases["down2_noaa"] = resize(image("input"), scale=0.5, antialias=False)
    for key, ours in cases.items():
        torch.testing.assert_close(ours, image(key), rtol=0, atol=1e-5)


def test_resize_by_size_equals_by_scale_where_both_say_the_same():
    image = picture(36, 48)
    torch.testing.assert_close(resize(image, size=(12, 16)), resize(image, scale=1 / 3))
    assert resize(image, size=(7, 90)).shape == (1, 3, 7, 90)


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 0.0}, {"scale": math.inf}, {"size": (0, 4)}, {"scale": 2.0, "size": (4, 4)}],
)
def test_resize_needs_one_positive_size(options):
    with pytest.raises(DegradationError, match="size"):
        resize(picture(8, 8), **options)


def test_downsample_sizes():
    images = torch.cat([picture(33, 47, seed) for seed in range(8)])
    smaller = Downsample(scales=(4,))
    out = smaller.apply(images, smaller.sample((8, 3, 33, 47), generator()))
    assert out.shape == (8, 3, 9, 12)
    restored = Downsample(restore_size=True)
    parameters = restored.sample((8, 3, 33, 47), generator())
    assert len(set(parameters["scale"].tolist())) > 1
    assert restored.apply(images, parameters).shape == images.shape
    with pytest.raises(DegradationError, match="restore_size"):
        Downsample().apply(images, parameters)
