"""Documents on disk: each is read whole within bounds, given current names and validated into its type, here and nowhere else.

Whatever is wrong with one (empty, cut off, binary, of another shape, of a later version, a folder, a pipe) is a UserError with
its file or line, the key, the rule and what to do. Nothing here imports torch.
"""

import contextlib
import errno
import functools
import gc
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Required, TypeVar, cast, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from typing_extensions import TypedDict

from study.atomic_io import read_regular
from study.config.formats import FORMAT, FORMER_NAMES, upgrade
from study.config.yaml_source import list_problems
from study.errors import Problem, UserError, add_location

MAX_DOCUMENT_BYTES = 1 << 30  # the plan of 200,000 runs has half as many
STORED = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
"""Of dataclasses that are read from files: no conversion of types; what versions of the same format added is ignored."""
CORRECTABLE = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR, errno.EFBIG, errno.ELOOP, errno.ENXIO)
"""Reasons why a file can't be read that its owner can do something about; others are the system's."""

MAX_COUNT = (1 << 63) - 1  # a table's integers have 64 bits
Accuracy = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=200)]
"""What becomes part of a path."""
Scalar = str | int | float | bool | None

T = TypeVar("T")

_CURRENT = (f": {FORMAT},".encode(), f": {FORMAT}}}".encode())
_SUSPECT = (b"NaN", b"Infinity", b"\\u", *(name.encode() for name in FORMER_NAMES.values()))


class WrongDocument(UserError):
    """A document of this version whose values are not of its types, or can't be true."""


@contextlib.contextmanager
def pause_collection() -> Iterator[None]:
    """Read many documents, which have no cycles, without the garbage collector: it would visit all of them many times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_document(path: Path, kind: type[T], *, hint: str) -> T:
    """The typed document of a JSON file.

    Raises
    ------
    UserError
        If the file is missing, can't be read or is no such document; the message ends with `hint`, which says how to recover.
    """
    return parse_document(read_content(path, hint=hint), kind, place=str(path), hint=hint)


def read_content(path: Path, *, hint: str) -> bytes:
    """The bytes of a file. UserError where it is missing, no regular file, too large or not permitted."""
    try:
        return read_regular(path, MAX_DOCUMENT_BYTES)
    except FileNotFoundError:
        raise UserError(Problem(f"this file is missing: {hint}", place=str(path))) from None
    except OSError as error:
        if error.errno not in CORRECTABLE:
            raise
        raise UserError(Problem(f"this file can't be read ({error.strerror}): {hint}", place=str(path))) from None


def parse_document(content: bytes, kind: type[T], *, place: str, hint: str) -> T:
    """The typed document of JSON text. UserError with the keys that are not as they should be."""
    try:
        with add_location(place):
            adapter: TypeAdapter[T] = make_adapter(cast(Hashable, kind))
            if not _may_need_upgrade(content):
                with contextlib.suppress(ValidationError):  # what is wrong is found below
                    return adapter.validate_json(content)
            return adapter.validate_json(to_json(upgrade(from_json(content, allow_inf_nan=False))))
    except ValidationError as error:
        problems = list_problems(error, None, places={}, file=place)
        raise WrongDocument(
            Problem(f"not what this version of the project writes here: {hint}", place=place), *problems
        ) from None
    except ValueError as error:
        raise UserError(Problem(f"this is damaged ({error}): {hint}", place=place)) from None


def _may_need_upgrade(content: bytes) -> bool:
    """Whether JSON text may be of another format or hold numbers that JSON lacks: most text is only read once, by its type."""
    for word in _SUSPECT:  # half the time of any()
        if word in content:
            return True
    return any(not after.startswith(_CURRENT) for after in content.split(b'"format"')[1:])


@functools.cache
def make_adapter(kind: Any) -> TypeAdapter[Any]:
    """The validator of a type, built once."""
    return TypeAdapter(kind)


@dataclass(frozen=True)
class JsonLine:
    """One line of a JSON-lines file, with its file and line number."""

    content: bytes
    place: str


def read_json_lines(path: Path, *, hint: str) -> Iterator[JsonLine]:
    """The complete lines of a JSON-lines file: a killed writer leaves an incomplete last one, which is ignored."""
    for number, line in enumerate(read_content(path, hint=hint).split(b"\n")[:-1], start=1):
        yield JsonLine(line, f"{path}:{number}")


def as_stored(options: type[BaseModel], *, required: Sequence[str] = ()) -> GetPydanticSchema:
    """Annotates the JSON values of a group of options with these options' own types and bounds.

    Each may be None, where tuning has yet to select, and missing, in files of earlier versions, but for those `required`. What
    only the words of a sweep need, such as the expansion of `~` and `2%`, is left out.
    """
    fields: dict[str, Any] = {}
    for name, field in options.model_fields.items():
        kind: Any = list[float] if get_origin(field.annotation) is tuple else field.annotation
        bounds = [each for each in field.metadata if not isinstance(each, BeforeValidator)]
        bounded: Any = Annotated[(kind, *bounds)] if bounds else kind
        bounded = Annotated[bounded, Field(le=MAX_COUNT)] if kind is int else bounded
        fields[name] = Required[bounded] if name in required else bounded | None
    make_type: Any = TypedDict  # called with fields that only the options know
    group = make_type("group", fields, total=False)
    group.__pydantic_config__ = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    return GetPydanticSchema(lambda _, build: build(group))
