"""The files that runs start from (`train.start`), each read once in a plan and compared with every architecture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from study.backbones.specification import BackboneSpec
from study.data import DatasetInfo
from study.errors import UserError, and_more
from study.planning.planned_run import PlannedRun
from study.training.starting_weights import StartingWeights, describe_fit

_SHOWN = 24  # files and ways


@dataclass
class StartPlanner:
    """Keeps what was read, and what comparing it with an architecture has found."""

    _read: dict[str, StartingWeights | UserError] = field(default_factory=dict)
    _fitted: dict[tuple[str, BackboneSpec, tuple[str, ...]], str | UserError] = field(default_factory=dict)

    def plan(self, start: str, spec: BackboneSpec, info: DatasetInfo) -> tuple[str, str]:
        """The SHA-256 of a file, and how its weights are fitted to a model of these classes. UserError if they can't be."""
        if start not in self._read:
            try:
                self._read[start] = StartingWeights.read(start)
            except UserError as error:
                self._read[start] = error
        source = self._read[start]
        if isinstance(source, UserError):
            raise source
        key = start, spec, info.class_names
        if key not in self._fitted:
            try:
                self._fitted[key] = describe_fit(source.fit(spec, class_names=info.class_names), spec)
            except UserError as error:
                self._fitted[key] = error
        fit = self._fitted[key]
        if isinstance(fit, UserError):
            raise fit
        return source.file.sha256, fit


def describe_starts(cells: Sequence[PlannedRun]) -> list[str]:
    """A line for each file that runs start from, and for each way in which it is fitted to their models."""
    fits: dict[str, list[str]] = {}
    for cell in cells:
        train = cell.run.train
        if train.start is not None and train.start_sha256 is not None:
            fits.setdefault(f"{train.start} (SHA-256 {train.start_sha256[:12]})", []).append(cell.fit)
    lines = [(file, fit) for file, found in fits.items() for fit in dict.fromkeys(found)]
    return and_more([f"starts from {file}{fit and f': {fit}'}" for file, fit in lines], _SHOWN)
