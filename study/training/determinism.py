"""The same bits each time on a GPU: what has to be set before its first product. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import MutableMapping


def enable_deterministic_cublas(environment: MutableMapping[str, str]) -> None:
    """cuBLAS gives the same bits each time only with workspaces of a fixed size, asked for before its first product.

    What is set already stays. https://docs.nvidia.com/cuda/cublas, "Results reproducibility"
    """
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
