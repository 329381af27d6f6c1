"""The looks that were taken at a study whose seeds come in stages: `runs/<sweep>/looks/<number>.json`, immutable.

A look is a fact: of which design it was, which runs it saw with which accuracies, and what it decided. The plan of the next
stage follows from it, and no look is taken twice.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from study.config.documents import Accuracy, read_document
from study.config.formats import FORMAT
from study.config.options import Options
from study.config.seeds import Stages
from study.errors import Problem, UserError
from study.records.sweep_folder import SweepFolder, write_new

DECIDED = ("higher", "lower", "equivalent")
"""Verdicts after which a contrast needs no further seed."""

_HINT = "restore it; or give the sweep another name (name=...), which starts a study of its own"


class ContrastAtLook(Options):
    """What a look says of one primary contrast; fractions, with the repeated interval. `part` is "" where there is one."""

    part: str
    contrast: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    verdict: str


class TakenLook(Options):
    """One look: its `number` from 1, its design as from `describe_design`, and the test accuracy of each run it saw.

    A diverged run has none.
    """

    number: int
    design: dict[str, JsonValue]
    runs: dict[str, Accuracy | None]
    contrasts: tuple[ContrastAtLook, ...]
    format: int = FORMAT

    @property
    def undecided(self) -> list[str]:
        """The names of the primary contrasts that are neither significant nor equivalent."""
        return [each.contrast for each in self.contrasts if each.verdict not in DECIDED]


def describe_design(stages: Stages | None, effect_of_interest: object, contrasts: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change between the looks of a study, as JSON values."""
    sizes = list(stages.sizes) if stages else None
    stated = {"seeds": sizes, "effect_of_interest": effect_of_interest, "contrasts": dict(contrasts)}
    plain: dict[str, Any] = json.loads(json.dumps(stated))
    return plain


def write_look(folder: SweepFolder, look: TakenLook) -> None:
    """Write a look. UserError if it was taken with another result."""
    write_new(folder.looks / f"{look.number}.json", look.model_dump(mode="json"))


def read_looks(folder: SweepFolder) -> list[TakenLook]:
    """All looks that were taken, in their order. Raises UserError if one is damaged or missing."""
    numbers = sorted(int(path.stem) for path in folder.looks.glob("*.json") if path.stem.isdecimal())
    return [read_document(folder.looks / f"{n}.json", TakenLook, hint=_HINT) for n in range(1, max(numbers, default=0) + 1)]


def check_looks(looks: Sequence[TakenLook], folder: SweepFolder, *, design: Mapping[str, Any]) -> None:
    """Raise UserError if the looks were taken of another design: seeds that were looked at are not free to choose any more."""
    for look in looks:
        changed = [name for name, value in design.items() if look.design.get(name) != value]
        if changed:
            rule = f"look {look.number} was taken of another design, with {changed[0]} {look.design.get(changed[0])!r}"
            problem = (
                f"{rule}: what was looked at can't be planned anew. Undo the change, or give the sweep another name (name=...)"
            )
            raise UserError(Problem(problem, str(folder.looks), changed[0], design[changed[0]]))
