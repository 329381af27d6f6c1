"""What is compared: backbones with one body (stem, blocks of token and channel mixing, head), and the registry of them."""

from study.backbones.registry import BACKBONES, build, build_backbone, get_spec_class, names, specify, variants

__all__ = ["BACKBONES", "build", "build_backbone", "get_spec_class", "names", "specify", "variants"]
