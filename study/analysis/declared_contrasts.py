"""The contrasts that a sweep states itself, next to those that follow from its axes, and which of all are primary."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from study.analysis.cell_grid import CellLevels, Level
from study.analysis.labels import format_option
from study.analysis.planned_contrasts import REFERENCES, Contrast, plan_contrasts
from study.errors import Problem, UserError
from study.records.columns import spell_level

OWN = "own contrasts"
"""The family of contrasts that a sweep states; their subject is empty, and they have no lower side."""


@dataclass(frozen=True)
class DeclaredContrasts:
    """References by column, own contrasts as terms of a weight and levels by column, and the names of the primary ones.

    `primary` None: the planned ones and all own.
    """

    references: Mapping[str, Level] = field(default_factory=lambda: dict(REFERENCES))
    own: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    primary: Sequence[str] | None = None

    def plan(self, levels: Mapping[str, Sequence[Level]], *, cells: Collection[CellLevels]) -> list[Contrast]:
        """All contrasts of a study: those of its axes, then its own.

        Raises UserError for a contrast of what is no cell, and for a primary one that there isn't.
        """
        varied = [factor for factor, values in levels.items() if len(set(values)) > 1]
        places = [place for place, factor in enumerate(levels) if factor in varied]
        planned = sorted({tuple(cell[place] for place in places) for cell in cells}, key=str)
        found = plan_contrasts(levels, cells=cells, references=self.references)
        found += [self._weigh(name, terms, varied, planned) for name, terms in self.own.items()]
        if self.primary is None:
            return found
        chosen = {find_contrast(name, found, key="contrasts.primary") for name in self.primary}
        return [replace(contrast, primary=place in chosen) for place, contrast in enumerate(found)]

    def _weigh(
        self, name: str, terms: Sequence[Mapping[str, Any]], factors: Sequence[str], cells: Sequence[CellLevels]
    ) -> Contrast:
        """A contrast whose terms have their weights evenly over all planned cells with their levels."""
        weights: dict[CellLevels, float] = {}
        for term in terms:
            wanted = {factor: spell_level(level) for factor, level in term.items() if factor != "weight"}
            if lacking := [factor for factor in wanted if factor not in factors]:
                rule = "is not compared within this report: it has one level in it, or other factors determine it"
                raise UserError(Problem(rule, key=f"contrasts.own.{name}.{lacking[0]}", choices=factors))
            own = [cell for cell in cells if all(cell[factors.index(key)] == level for key, level in wanted.items())]
            if not own:
                raise UserError(Problem("no planned cell has these levels", key=f"contrasts.own.{name}", value=str(wanted)))
            for cell in own:
                weights[cell] = weights.get(cell, 0.0) + term["weight"] / len(own)
        kept = tuple((cell, weight) for cell, weight in weights.items() if abs(weight) > 1e-12)
        if not kept:
            raise UserError(Problem("the terms cancel: nothing is compared", key=f"contrasts.own.{name}"))
        return Contrast(OWN, "", name, "", "", tuple(factors), kept, primary=True, control=False)


def find_contrast(name: str, contrasts: Sequence[Contrast], *, key: str) -> int:
    """The index of the contrast of this name.

    It may be written with a plain minus, without commas, the names of numeric factors and "averaged over ...": "attention -
    depthwise conv at 4". Raises UserError if there is none.
    """
    spellings: dict[str, int] = {}
    for level in range(3):  # an exact name comes before a short one
        for place, contrast in enumerate(contrasts):
            spellings.setdefault(list(_list_spellings(contrast))[level], place)
    wanted = _simplify(name)
    if wanted not in spellings:
        names = [contrast.name for contrast in contrasts]
        short = [list(_list_spellings(contrast))[2] for contrast in contrasts]
        raise UserError(Problem("no contrast of this name is planned", key=key, value=name, choices=names, candidates=short))
    return spellings[wanted]


def _list_spellings(contrast: Contrast) -> Iterator[str]:
    """From the longest to the shortest, simplified."""
    yield _simplify(contrast.name)
    whole = re.sub(r",? averaged over .*", "", contrast.name)
    yield _simplify(whole)
    for factor in contrast.factors:
        whole = whole.replace(f"{format_option(factor)} ", "")
    yield _simplify(whole)


def _simplify(name: str) -> str:
    return " ".join(name.replace("−", "-").replace(",", "").casefold().split())
