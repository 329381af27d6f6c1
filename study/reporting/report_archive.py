"""A report as one zip file, from which it is redrawn anywhere: tables, figures, sweep, environment and checksums.

    quickstart.zip
        quickstart/...               every file of the report's folder that the report is made of
        quickstart/environment.json  versions that the runs were trained with, and those that packed the archive
        quickstart/SHA256SUMS        of all the other files, as `sha256sum -c` reads it

The same folder gives the same bytes in the same environment. An archive may be someone else's: its names, sizes and checksums
are checked before a byte is used, and only the tables are read from it.
"""

import hashlib
import json
import platform
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from study.analysis.report_files import read_report_folder
from study.analysis.report_tables import TABLE_FILES, StudyTables
from study.atomic_io import whole_file
from study.config.folder_name import is_folder_name
from study.errors import Problem, UserError
from study.reporting.report_folder import DRAWN_FILES, WRITTEN, is_written_name
from study.version import VERSION

CHECKSUMS, ENVIRONMENT = "SHA256SUMS", "environment.json"
MAX_ARCHIVE_BYTES = 1 << 30  # unpacked; a report of 10,000 runs has a tenth of it
_LIBRARIES = ("matplotlib", "numpy", "pandas", "pyarrow", "scipy", "seaborn", "statsmodels")
"""What tables and figures are computed and drawn with."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold
_FILE_MODE = 0o644 << 16


def write_archive(folder: Path, path: Path) -> list[str]:
    """Pack a report's folder into a zip file, atomically; returns the names of the files. UserError if it is no report."""
    tables = read_report_folder(folder)
    if not all((folder / name).is_file() for name in DRAWN_FILES):
        raise UserError(Problem(f"this report is not drawn yet: python -m study.report {folder}", place=str(folder)))
    listed = (folder / WRITTEN).read_text(encoding="utf-8").splitlines()
    names = {*TABLE_FILES, *DRAWN_FILES, *filter(is_written_name, listed)}
    files = {name: (folder / name).read_bytes() for name in names if _is_own_file(folder, name)}
    files[ENVIRONMENT] = (json.dumps(describe_environment(tables), indent=1, sort_keys=True) + "\n").encode()
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    files[CHECKSUMS] = sums.encode()
    with whole_file(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(f"{tables.facts.name}/{name}", _EPOCH)
            entry.external_attr, entry.compress_type = _FILE_MODE, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return list(files)


def _is_own_file(folder: Path, name: str) -> bool:
    """Whether the file is there, and in the folder itself rather than behind a link to somewhere else."""
    return (folder / name).is_file() and (folder / name).resolve() == folder.resolve() / name


def describe_environment(study: StudyTables) -> dict[str, dict[str, object]]:
    """Versions: `runs`, every one that the run table has, and `archive`, those of this process and what it depends on."""
    table = study.table
    columns = [str(name) for name in table.columns if str(name).endswith("_version") or name in ("commit", "device_name")]
    return {
        "runs": {name: sorted({str(value) for value in table[name].dropna()}) for name in columns},
        "archive": {"study": VERSION, "python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def read_archive(path: Path) -> StudyTables:
    """The tables in an archive. Raises UserError as `unpack_tables` does."""
    with tempfile.TemporaryDirectory() as place:
        unpack_tables(path, Path(place))
        return read_report_folder(Path(place))


def unpack_tables(path: Path, folder: Path) -> None:
    """Write the tables of an archive to a folder, as they were packed, in place of those that are there.

    Raises UserError, naming the entry and before anything is written, for what no archive of a report has, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = dict(_read_checked(archive, path))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(Problem(f"this is no zip file of a report, or it is damaged ({error})", place=str(path))) from None
    _check_sums(files, path)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLE_FILES:
        (folder / name).unlink(missing_ok=True)  # a link here would be written through
        if name in files:
            (folder / name).write_bytes(files[name])


def _read_checked(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every entry, after all names and sizes have been checked."""
    entries, problems = archive.infolist(), []
    folders = {entry.filename.partition("/")[0] for entry in entries}
    for entry in entries:
        folder, _, name = entry.filename.partition("/")
        known = name in (*TABLE_FILES, *DRAWN_FILES, ENVIRONMENT, CHECKSUMS) or is_written_name(name)
        if not known or len(folders) > 1 or not all(map(is_folder_name, folder.split("-vs-"))) or entry.is_dir():
            problems.append(Problem("is not a file of a report", place=str(path), value=entry.filename))
    if len({entry.filename for entry in entries}) < len(entries):
        problems.append(Problem("has a file twice", place=str(path)))
    if (size := sum(entry.file_size for entry in entries)) > MAX_ARCHIVE_BYTES:
        problems.append(Problem(f"is too large: {size:,} bytes unpacked, at most {MAX_ARCHIVE_BYTES:,}", place=str(path)))
    if problems:
        raise UserError(*problems)
    return ((entry.filename.partition("/")[2], archive.read(entry)) for entry in entries)


def _check_sums(files: dict[str, bytes], path: Path) -> None:
    lines = files.get(CHECKSUMS, b"").decode("utf-8", errors="replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    rule = f"has another content than {CHECKSUMS} says: the archive is damaged or was edited"
    wrong = [
        Problem(rule, place=str(path), value=name)
        for name, content in files.items()
        if name != CHECKSUMS and sums.get(name) != hashlib.sha256(content).hexdigest()
    ]
    wrong += [
        Problem(f"is in {CHECKSUMS} and not in the archive", str(path), value=name) for name in sums.keys() - files.keys()
    ]
    if wrong:
        raise UserError(*wrong)
