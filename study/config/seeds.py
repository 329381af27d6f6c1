"""The seeds that every cell is run with: a count, a range, a list, or stages of them until the study is decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

MAX_SEEDS = 100_000  # a typing error must not fill the memory
MAX_LOOKS = 50
MIN_FIRST = 3  # seeds of the first look: fewer have no interval

_RULE = f"seeds are a count (1 to {MAX_SEEDS:,}), {{from: FIRST, count: N}}, or a list of integers"
_UNTIL_RULE = (
    f"seeds as needed are {{until: decided, from: N, to: M, step: K}}: {MIN_FIRST} at least, more than that, and in at most "
    f"{MAX_LOOKS} steps"
)


@dataclass(frozen=True)
class Stages:
    """Seeds as needed: further ones are run until every primary contrast is significant or equivalent.

    `sizes` are the seeds of each cell, counted from 0, at every planned look; `taken` of these have been, and at the last of
    them the study was `decided` or not.
    """

    sizes: tuple[int, ...]
    taken: int = 0
    decided: bool = False

    @property
    def following(self) -> int | None:
        """The number of the next look, from 1; None where the study has ended."""
        return None if self.decided or self.taken == len(self.sizes) else self.taken + 1

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the runs that the next look needs, or that the last one had."""
        return tuple(range(self.sizes[(self.following or self.taken) - 1]))

    @property
    def every(self) -> tuple[int, ...]:
        """All that may be run."""
        return tuple(range(self.sizes[-1]))


def _expand_seeds(value: object) -> object:
    """`10` -> 0 to 9, `{from: 100, count: 5}` -> 100 to 104; a list stays as it is."""
    if isinstance(value, list) and value:
        return value
    is_range = isinstance(value, dict) and value.keys() == {"from", "count"}
    first, count = (value["from"], value["count"]) if is_range else (0, value)  # type: ignore[index]
    if type(first) is int and type(count) is int and first >= 0 and 1 <= count <= MAX_SEEDS:
        return list(range(first, first + count))
    raise ValueError(_RULE)


def _check_seeds(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds) or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise ValueError("seeds must be distinct non-negative integers")
    return seeds


def _read_stages(value: object) -> object:
    """`{until: decided, from: 5, to: 30, step: 5}` -> stages of 5, 10, ..., 30 seeds; else a list of seeds."""
    if not isinstance(value, dict) or "until" not in value:
        return _check_seeds(_expand_seeds(value))  # type: ignore[arg-type]
    match value:
        case {"until": "decided", "from": int() as first, "to": int() as last, "step": int() as step, **rest}:
            few = step >= 1 and (last - first - 1) // step + 1 < MAX_LOOKS
            if MIN_FIRST <= first < last <= MAX_SEEDS and few and step is not True and not rest:
                return Stages((*range(first, last, step), last))
    raise ValueError(_UNTIL_RULE)


Seeds = Annotated[list[int], BeforeValidator(_expand_seeds), AfterValidator(_check_seeds)]
StagedSeeds = Annotated[Any, AfterValidator(_read_stages)]
"""`Seeds`, or `Stages`."""


def format_seeds(seeds: Sequence[int]) -> str:
    """The shortest spelling of seeds: `10`, `{from: 100, count: 5}` or `[0, 7]`."""
    first, count = seeds[0], len(seeds)
    if list(seeds) != list(range(first, first + count)):
        return str(list(seeds))
    return f"{{from: {first}, count: {count}}}" if first else str(count)
