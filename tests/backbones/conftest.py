"""timm imports torchvision, whose import needs two operators declared beside a CPU torch."""

from study.data.torchvision_schema import declare_missing_operators

declare_missing_operators()
