import pytest
import torch

from flexiact_core.errors import ShapeError
from flexiact_core.video import check_frames, check_single_image, fit_frames, lay_over_white, to_frames, to_model_pixels


def picture(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_an_rgb_picture_passes_unchanged():
    image = picture(1, 20, 30, 3)
    assert torch.equal(check_single_image(image, "image"), image)


@pytest.mark.parametrize("shape", [(20, 30, 3), (1, 1, 20, 30, 3), (20, 30)])
def test_an_image_of_the_wrong_rank_is_refused_with_its_shape(shape):
    with pytest.raises(ShapeError, match=rf"image: .*{len(shape)} dimensions found .*IMAGE output"):
        check_single_image(picture(*shape), "image")


def test_a_batch_of_pictures_is_refused_with_the_nodes_that_split_it():
    with pytest.raises(ShapeError, match="image: one picture expected, 3 found.*ImageFromBatch"):
        check_single_image(picture(3, 20, 30, 3), "image")


def test_no_picture_at_all_is_refused():
    with pytest.raises(ShapeError, match="image: no frame in it"):
        check_single_image(picture(0, 20, 30, 3), "image")


@pytest.mark.parametrize("channels", [2, 5, 16])
def test_a_picture_of_unknown_channels_is_refused(channels):
    with pytest.raises(ShapeError, match=f"image: {channels} channels found"):
        check_single_image(picture(1, 20, 30, channels), "image")


def test_transparent_pixels_lie_over_white():
    image = torch.zeros(1, 16, 16, 4)
    image[..., 3] = 0.25
    assert torch.allclose(check_frames(image, "image"), torch.full((1, 16, 16, 3), 0.75))
    opaque = torch.cat([picture(1, 16, 16, 3), torch.ones(1, 16, 16, 1)], dim=-1)
    assert torch.equal(check_frames(opaque, "image"), opaque[..., :3])


def test_grey_pictures_become_rgb():
    grey = picture(1, 16, 16, 1)
    assert torch.equal(check_frames(grey, "image"), torch.cat([grey] * 3, dim=-1))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (15, 400), (400, 2)])
def test_a_tiny_picture_is_refused_with_its_size(height, width):
    with pytest.raises(ShapeError, match=f"image: {width}x{height} pixels is too small; at least 16x16"):
        check_single_image(picture(1, height, width, 3), "image", 16)


def test_a_huge_picture_is_fitted():
    image = check_single_image(torch.full((1, 3000, 5000, 3), 0.25), "image")
    fitted = fit_frames(image, 720, 480)
    assert fitted.shape == (1, 480, 720, 3)
    assert torch.allclose(fitted, torch.tensor(0.25), atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_no_numbers_are_refused(value):
    image = picture(1, 20, 30, 3)
    image[0, 7, 7, 1] = value
    with pytest.raises(ShapeError, match="image: some pixels are not numbers"):
        check_single_image(image, "image")


def test_values_outside_the_range_are_clamped():
    image = torch.tensor([-0.5, 0.5, 1.5]).expand(1, 16, 16, 3)
    assert torch.equal(check_frames(image, "image")[0, 0, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_checking_leaves_the_given_image_as_it_was():
    image = picture(1, 20, 30, 4) * 2 - 0.5
    before = image.clone()
    check_frames(image, "image")
    assert torch.equal(image, before)


@pytest.mark.parametrize(("height", "width"), [(480, 720), (100, 999), (999, 100), (17, 16), (240, 360)])
def test_fitting_stretches_nothing_and_cuts_at_the_centre(height, width):
    # A ramp along each axis: its slope tells the scale, its middle value the place.
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    fitted = fit_frames(torch.stack([x, y, x], dim=-1)[None], 720, 480)
    assert fitted.shape == (1, 480, 720, 3)
    assert fitted[0, 239:241, 359:361].mean((0, 1)).tolist() == pytest.approx([0.5] * 3, abs=0.05)
    slope_x = (fitted[0, 240, 540, 0] - fitted[0, 240, 180, 0]) / 360 * (width - 1)
    slope_y = (fitted[0, 360, 360, 1] - fitted[0, 120, 360, 1]) / 240 * (height - 1)
    assert slope_x == pytest.approx(float(slope_y), rel=0.08)


def test_a_picture_of_the_right_size_is_not_resampled():
    image = picture(2, 32, 48, 3)
    assert torch.equal(fit_frames(image, 48, 32), image)


def test_pixels_and_frames_are_each_others_inverse():
    frames = picture(5, 16, 24, 3)
    pixels = to_model_pixels(frames)
    assert pixels.shape == (1, 3, 5, 16, 24)
    assert pixels.min() >= -1 and pixels.max() <= 1
    assert torch.equal(pixels[0, :, 2, 3, 4], frames[2, 3, 4] * 2 - 1)
    assert torch.allclose(to_frames(pixels), frames, atol=1e-6)
    assert to_frames(pixels * 3).max() <= 1


@pytest.mark.parametrize("shape", [(1, 40, 60), (40, 60), (1, 20, 30), (2, 40, 60)])
def test_what_a_mask_hides_is_white(shape):
    frames = torch.rand(2, 40, 60, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(shape)
    mask[..., : shape[-2] // 2, :] = 1
    shown = lay_over_white(frames, mask)
    assert (shown[:, :18] == 1).all()
    torch.testing.assert_close(shown[:, 22:], frames[:, 22:])


def test_half_hidden_is_half_white():
    shown = lay_over_white(torch.full((1, 16, 16, 3), 0.2), torch.full((1, 16, 16), 0.25))
    torch.testing.assert_close(shown, torch.full((1, 16, 16, 3), 0.2 * 0.75 + 0.25))


def test_the_empty_mask_of_a_picture_without_transparency_changes_nothing():
    frames = torch.rand(1, 40, 60, 3)
    assert torch.equal(lay_over_white(frames, torch.zeros(1, 64, 64)), frames)


@pytest.mark.parametrize(
    ("mask", "words"),
    [(torch.zeros(3, 16, 16), "one mask for each picture"), (torch.zeros(1, 16, 16, 3), "one mask for each"),
     (torch.full((1, 16, 16), float("nan")), "not numbers")],
)  # fmt: skip
def test_a_mask_that_does_not_fit_is_refused(mask, words):
    with pytest.raises(ShapeError, match=f"mask: .*{words}"):
        lay_over_white(torch.zeros(2, 16, 16, 3), mask)
