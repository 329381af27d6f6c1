"""python -m study.worker.requeue_after_crash FOLDER LAUNCH FIRST: the last line of a job whose workers didn't all end in order.

Where one died in the middle of a run (kill -9, out of memory, a crash below Python) the job goes back into the queue, and the
worker resumes from its last checkpoint. A run that does this to its worker three times without progress is then recorded as
failed, so there is an end to it. Nobody gets here after scancel, preemption or a time limit: those end the script as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from study.records.journal import last_words, read_journals
from study.records.ledger import read_launch
from study.records.sweep_folder import SweepFolder
from study.worker.signals import requeue


def main(words: list[str], environment: Mapping[str, str]) -> int:
    folder, launch_id, first = SweepFolder(Path(words[0])), words[1], int(words[2])
    job = first + int(environment.get("SLURM_ARRAY_TASK_ID", "0"))
    workers = read_launch(folder, launch_id).workers_of(job)
    dead = {worker: word for worker, word in last_words(read_journals(folder, of=workers)).items() if word.open}
    for (_, task), word in dead.items():
        print(f"worker {task} died while training {', '.join(word.open)}: back into the queue", file=sys.stderr)
    return int(bool(dead) and not requeue(environment["SLURM_JOB_ID"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
