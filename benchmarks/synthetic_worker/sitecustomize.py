"""First on the path of a worker, this lets it record made-up outcomes instead of training: `python -m benchmarks.scale`."""

import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _SyntheticTraining(importlib.abc.MetaPathFinder):
    """Replaces the one method that trains a run, when its module is imported."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "study.worker.runner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            from benchmarks.synthetic_runs import make_record

            execute(module)
            module.Trainer.train = lambda self, entry, *, stop, log: make_record(entry.planned)

        spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _SyntheticTraining())
