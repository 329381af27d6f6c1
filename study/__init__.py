"""Patch or attention? An ablation harness that holds everything equal except the factor under study.

The public interface is this module:

>>> from study import build, count_cost, load_report, load_table
>>> model = build("vit", image_size=32, in_channels=3, num_classes=10, patch_size=4, dim=96, depth=6, heads=3)
>>> count_cost(model, image_size=32, in_channels=3).params
683050
>>> load_table("runs/patch_size")  # doctest: +SKIP
>>> load_report("reports/quickstart").contrasts  # doctest: +SKIP

Every name is imported on first use: `import study` loads neither torch nor pandas.
"""

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from study.version import VERSION

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # `python -m study.launch` imports for seconds: Ctrl-C then gives no traceback

if TYPE_CHECKING:
    from study.backbones import build, names
    from study.notebook import Sweep
    from study.planning.traced_cost import count_cost
    from study.records.predictions import load_predictions
    from study.records.probe_file import load_probes
    from study.records.table import load_correctness, load_table, load_trials
    from study.reporting.result_files import load_report

__version__ = VERSION

__all__ = [
    "Sweep",
    "build",
    "count_cost",
    "load_correctness",
    "load_predictions",
    "load_probes",
    "load_report",
    "load_table",
    "load_trials",
    "names",
]

_MODULES = {
    "Sweep": "study.notebook",
    "build": "study.backbones",
    "names": "study.backbones",
    "count_cost": "study.planning.traced_cost",
    "load_correctness": "study.records.table",
    "load_predictions": "study.records.predictions",
    "load_probes": "study.records.probe_file",
    "load_report": "study.reporting.result_files",
    "load_table": "study.records.table",
    "load_trials": "study.records.table",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
