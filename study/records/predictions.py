"""The predicted class of every test image, run by run: one Parquet file per worker process (`data.predictions`).

    run_id, image, label, predicted, probability        one row group per run

`image` is the position in the data set's own order, `probability` that of the predicted class.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic_io import whole_file
from study.config.documents import read_content
from study.errors import Problem, UserError
from study.records.record import OUTCOMES, read_records
from study.records.sweep_folder import SweepFolder, Writer

CONFIDENCE_BINS = 15  # of equal width, as Guo et al. 2017 have them
SCHEMA = pa.schema(
    {"run_id": pa.string(), "image": pa.int32(), "label": pa.int32(), "predicted": pa.int32(), "probability": pa.float32()}
)


def write_predictions(
    folder: SweepFolder,
    writer: Writer,
    *,
    run_id: str,
    image: npt.NDArray[Any],
    label: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    probability: npt.NDArray[Any],
) -> None:
    """Append a run to the writer's file, atomically. To be called before the run is recorded."""
    columns = [[run_id] * len(image), image, label, predicted, probability]
    own = pa.table([pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)
    path = folder.predictions / f"{writer}.parquet"
    with whole_file(path) as draft, pq.ParquetWriter(draft, SCHEMA) as out:
        for table in _read_groups(path) if path.exists() else ():
            out.write_table(table)
        out.write_table(own)


def _read_groups(path: Path, columns: Sequence[str] = tuple(SCHEMA.names)) -> list[pa.Table]:
    """The row groups of a file, one of each run. UserError where it is damaged or something else."""
    hint = "restore it, or move it away: its runs then have no predictions"
    content = read_content(path, hint=hint)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        found = [file.read_row_group(number, list(columns)) for number in range(file.num_row_groups)]
    except Exception as error:  # for damaged bytes Arrow raises many types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(Problem(f"no file of predictions ({reason}): {hint}", place=str(path))) from None
    if file.schema_arrow != SCHEMA:
        raise UserError(Problem(f"no file of predictions (other columns): {hint}", place=str(path)))
    return found


def read_predicted_runs(folder: SweepFolder) -> set[str]:
    """The ids of the runs whose predictions are on disk, read from the first row of each."""
    groups = (group for path in folder.predictions.glob("*.parquet") for group in _read_groups(path, ["run_id"]))
    return {group["run_id"][0].as_py() for group in groups if len(group)}


def count_predictions(folder: str | Path) -> pd.DataFrame:
    """How often each run predicted what: one row per run, label, predicted class and bin of confidence; sorted.

    Columns: run_id, label, predicted, bin (0 to 14, of equal width), images, confidence (summed over the images).
    """
    rows = load_predictions(folder)
    bins = (rows["probability"] * CONFIDENCE_BINS).astype("int32").clip(upper=CONFIDENCE_BINS - 1)
    grouped = rows.assign(bin=bins).groupby(["run_id", "label", "predicted", "bin"])["probability"]
    return grouped.agg(images="size", confidence="sum").reset_index().astype({"confidence": "float64"})


def load_predictions(folder: str | Path) -> pd.DataFrame:
    """The predictions of all runs with an outcome, one row per run and test image; empty if none were written."""
    place = SweepFolder(Path(folder))
    recorded = {run_id for run_id, attempts in read_records(place.records).items() if attempts.record.status in OUTCOMES}
    groups = [group for path in sorted(place.predictions.glob("*.parquet")) for group in _read_groups(path)]
    rows: pd.DataFrame = pa.concat_tables([SCHEMA.empty_table(), *groups]).to_pandas()
    rows = rows[rows["run_id"].isin(recorded)]
    return rows.drop_duplicates(["run_id", "image"], ignore_index=True)  # a worker crashed between predictions and record
