"""The predicted class of every test image, run by run: one Parquet file per worker process (`data.predictions`).

    run_id, image, label, predicted, probability        one row group per run

`image` is the position in the data set's own order, `probability` that of the predicted class.
"""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.atomic_io import whole_file
from study.records.record import OUTCOMES, read_records
from study.records.sweep_folder import SweepFolder, Writer

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
        if path.exists():
            file = pq.ParquetFile(path)
            for number in range(file.num_row_groups):
                out.write_table(file.read_row_group(number))
        out.write_table(own)


def read_predicted_runs(folder: SweepFolder) -> set[str]:
    """The ids of the runs whose predictions are on disk, read from the first row of each."""
    files = (pq.ParquetFile(path) for path in folder.predictions.glob("*.parquet"))
    groups = (file.read_row_group(number, ["run_id"]) for file in files for number in range(file.num_row_groups))
    return {group["run_id"][0].as_py() for group in groups if len(group)}


def load_predictions(folder: str | Path) -> pd.DataFrame:
    """The predictions of all runs with an outcome, one row per run and test image; empty if none were written."""
    place = SweepFolder(Path(folder))
    recorded = {run_id for run_id, attempts in read_records(place.records).items() if attempts.record.status in OUTCOMES}
    tables = [SCHEMA.empty_table(), *(pq.read_table(path) for path in sorted(place.predictions.glob("*.parquet")))]
    rows: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    rows = rows[rows["run_id"].isin(recorded)]
    return rows.drop_duplicates(["run_id", "image"], ignore_index=True)  # a worker crashed between predictions and record
