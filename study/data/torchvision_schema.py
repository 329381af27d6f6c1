"""Makes torchvision's CUDA wheel importable with a CPU build of torch.

The package index's torchvision is built for CUDA. With a CPU torch its compiled library does not load, and its
import then fails with "operator torchvision::nms does not exist": it registers fake kernels for two operators that
only that library declares. Declaring their schemas first makes data sets and transforms.v2 importable; the operators
themselves, and torchvision's own image decoding, stay unavailable (images are decoded with Pillow). timm imports
torchvision too, so whoever imports either calls `declare_missing_operators` first.
"""

import functools
import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@functools.cache  # keeps the library object: torch withdraws its declarations when it is deleted
def declare_missing_operators() -> torch.library.Library | None:
    """Declare the two operators where torch has no CUDA and torchvision's library doesn't load; else do nothing."""
    if torch.version.cuda is not None or torch.version.hip is not None or _can_load_library():
        return None
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS.values():
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def _can_load_library() -> bool:
    """Whether torchvision's compiled library loads here (torchvision's import loads it in the same way), or there is none."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for path in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
        except OSError:
            continue
    return all(hasattr(torch.ops.torchvision, name) for name in _SCHEMAS)
