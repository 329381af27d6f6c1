"""Count what a model costs: why equal parameters don't mean equal compute.

    python examples/count_cost.py

Costs are those of one forward pass of one image. MACs are multiply-accumulates; FLOPs are 2 x MACs.
"""

from __future__ import annotations

from typing import Any

from study import build, count_cost
from study.backbones import specify

IMAGE = {"image_size": 32, "in_channels": 3, "num_classes": 10}


def main() -> None:
    """Print the cost of one ViT at three patch sizes, counted and computed."""
    print("patch size  parameters           MACs  MACs by part")
    for patch_size in (1, 2, 4):
        # Sine-cosine position embeddings have no parameters, so that only the patch embedding differs in size.
        vit = {"dim": 96, "depth": 6, "heads": 3, "position_embedding": "sincos"}
        settings: dict[str, Any] = {**IMAGE, **vit, "patch_size": patch_size}

        # Counted: fvcore traces one forward pass of the model that is built, with every operator accounted for.
        counted = count_cost(build("vit", **settings), image_size=32, in_channels=3)

        # Computed: the same numbers in closed form from the specification, without building a model. This is what
        # the planner solves widths with, and it equals the trace exactly.
        computed = specify("vit", settings).closed_form()
        assert computed is not None and (counted.params, counted.macs) == (computed.params, computed.macs)

        parts = ", ".join(f"{name} {part.macs / counted.macs:.1%}" for name, part in counted.parts.items())
        print(f"{patch_size:>10}  {counted.params:>10,}  {counted.macs:>13,}  {parts}")


if __name__ == "__main__":
    main()
