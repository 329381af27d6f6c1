"""timm imports torchvision, whose import needs two operators declared with a CPU build of torch."""

from study.data.torchvision_schema import declare_missing_operators

declare_missing_operators()
