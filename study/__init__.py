"""Patch or attention? An ablation harness that holds everything equal but the part under study."""

__version__ = "0.1.0"
