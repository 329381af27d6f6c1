"""What equal bits on a GPU need before the first matrix product. Imports no torch."""

from collections.abc import MutableMapping


def enable_deterministic_cublas(environment: MutableMapping[str, str]) -> None:
    """cuBLAS gives the same bits each time only with workspaces of a fixed size, set before its first matrix product.

    A value that is set already stays. https://docs.nvidia.com/cuda/cublas, "Results reproducibility"
    """
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
