"""The kernel of a mixer over the grid: how far it reaches, fixed in tokens or in pixels.

At twice the patch size a kernel of as many tokens covers twice as many pixels; so a study of patch sizes has to say which
of the two it keeps fixed. `kernel_pixels` is the span in pixels: the kernel reaches half of it to each side, in whole
tokens (8 pixels are 9 tokens at patch size 1, 5 at 2, 3 at 4).
"""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

_DEFAULT_KERNEL_SIZE = 5  # of the authors' CIFAR-10 ConvMixer


def kernel_in_tokens(kernel_pixels: int, patch_size: int) -> int:
    """The odd kernel that reaches half of `kernel_pixels` to each side."""
    return 2 * (kernel_pixels // (2 * patch_size)) + 1


def default_kernel_size(resolved: dict[str, Any]) -> int:
    """The kernel in tokens that follows from `kernel_pixels`, or else the default."""
    pixels = resolved.get("kernel_pixels")
    return _DEFAULT_KERNEL_SIZE if pixels is None else kernel_in_tokens(pixels, resolved["patch_size"])


def validate_kernel_pixels(kernel_pixels: int | None, info: ValidationInfo) -> int | None:
    """Require a span that reaches at least the adjacent token; raises ValueError otherwise."""
    patch_size = info.data.get("patch_size", 1)
    if kernel_pixels is not None and kernel_pixels < 2 * patch_size:
        raise ValueError(f"kernel_pixels must be at least {2 * patch_size} to reach a neighbor at patch_size {patch_size}")
    return kernel_pixels


def validate_kernel_size(kernel_size: int, info: ValidationInfo) -> int:
    """Require a kernel with a center, that agrees with `kernel_pixels` and is not wider than the grid can fill.

    From no position of a grid of g x g does a kernel of more than 2g - 1 tokens reach further than one of 2g - 1.
    Raises ValueError.
    """
    if kernel_size % 2 == 0:
        raise ValueError("kernel_size must be odd, so that the kernel has a center")
    if not {"image_size", "patch_size"} <= info.data.keys():
        return kernel_size  # these options have problems, which are reported for them
    grid = info.data["image_size"] // info.data["patch_size"]
    if kernel_size > 2 * grid:
        raise ValueError(
            f"kernel_size must not exceed twice the token grid: {grid} x {grid} tokens allow {2 * grid - 1}, not {kernel_size}"
        )
    pixels = info.data.get("kernel_pixels")
    if pixels is not None and kernel_size != (expected := kernel_in_tokens(pixels, info.data["patch_size"])):
        raise ValueError(f"kernel_size contradicts kernel_pixels, which implies {expected} tokens: give one of the two")
    return kernel_size


KernelPixels = Annotated[int | None, AfterValidator(validate_kernel_pixels)]
KernelSize = Annotated[int, Field(ge=1), AfterValidator(validate_kernel_size)]
