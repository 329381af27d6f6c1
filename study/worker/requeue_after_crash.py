"""python -m study.worker.requeue_after_crash FOLDER LAUNCH FIRST: the last line of a job in which a worker failed.

If a worker crashed in the middle of a run (kill -9, out of memory, a segmentation fault), the job is requeued, and the worker
resumes from its last checkpoint. A run that crashes its worker three times with no progress is then recorded as failed, so the
loop ends. scancel, preemption and time limits end the job's script too, so they never reach this line.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from study.records.journal import find_last_states, read_journals
from study.records.ledger import read_launch
from study.records.sweep_folder import SweepFolder
from study.worker.signals import requeue


def main(words: list[str], environment: Mapping[str, str]) -> int:
    folder, launch_id, first = SweepFolder(Path(words[0])), words[1], int(words[2])
    job = first + int(environment.get("SLURM_ARRAY_TASK_ID", "0"))
    workers = read_launch(folder, launch_id).workers_of(job)
    states = find_last_states(read_journals(folder, workers=workers))
    crashed = {worker: state for worker, state in states.items() if state.open_runs}
    for (_, task), state in crashed.items():
        print(f"worker {task} crashed while training {', '.join(state.open_runs)}: requeueing the job", file=sys.stderr)
    return int(bool(crashed) and not requeue(environment["SLURM_JOB_ID"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
