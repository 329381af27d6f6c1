"""What each test image was taken for, run by run: one Parquet file per worker, where `data.predictions` asks for it.

    run_id, image, label, predicted, probability        one row group per run

`image` is the position in the source's own order, `probability` what the model gave the class it predicted. From these
follow McNemar's test of two runs and the calibration of one (docs/data.md). Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    [
        ("run_id", pa.string()),
        ("image", pa.int32()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("probability", pa.float32()),
    ]
)


def keep_predictions(
    folder: SweepFolder,
    writer: Writer,
    *,
    run_id: str,
    image: npt.NDArray[Any],
    label: npt.NDArray[Any],
    predicted: npt.NDArray[Any],
    probability: npt.NDArray[Any],
) -> None:
    """Adds a run to the writer's own file, which is whole on disk before and after; to be called before it is recorded."""
    columns = [[run_id] * len(image), image, label, predicted, probability]
    own = pa.table([pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA)
    path = folder.predictions / f"{writer}.parquet"
    with whole_file(path) as draft, pq.ParquetWriter(draft, SCHEMA) as out:
        for run in row_groups(path):
            out.write_table(run)
        out.write_table(own)


def row_groups(path: Path) -> Iterator[pa.Table]:
    """The runs in a file, one at a time; none where there is no file yet."""
    if path.exists():
        file = pq.ParquetFile(path)
        yield from map(file.read_row_group, range(file.num_row_groups))


def kept_predictions(folder: SweepFolder) -> set[str]:
    """The runs whose predictions are on disk, by the first row of each."""
    files = (pq.ParquetFile(path) for path in folder.predictions.glob("*.parquet"))
    groups = (file.read_row_group(number, ["run_id"]) for file in files for number in range(file.num_row_groups))
    return {group["run_id"][0].as_py() for group in groups if len(group)}


def load_predictions(folder: str | Path) -> pd.DataFrame:
    """The predictions of all runs that have an outcome, one row per run and test image; empty where none were kept."""
    place = SweepFolder(Path(folder))
    recorded = {run_id for run_id, attempts in read_records(place.records).items() if attempts.record.status in OUTCOMES}
    kept = [SCHEMA.empty_table(), *(pq.read_table(path) for path in sorted(place.predictions.glob("*.parquet")))]
    rows: pd.DataFrame = pa.concat_tables(kept).to_pandas()
    rows = rows[rows["run_id"].isin(recorded)]
    return rows.drop_duplicates(["run_id", "image"], ignore_index=True)  # a worker died between predictions and record
