"""The ranks of one worker: where they meet, how they refuse, what they leave when they fail, what a launch gives them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch import distributed

from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError
from study.launcher.assignment import check_batches
from study.launcher.liveness import Life
from study.launcher.slurm.profile import Profile
from study.launcher.sweep_status import gaps
from study.planning.sweep_plan import make_plan
from study.records.ledger import Launch, write_launch
from study.records.rank_failures import RankFailure, failures, forget_failures, note_failure
from study.records.sweep_folder import SweepFolder, Writer
from study.worker.process_group import PORTS, Company, Seat, own_gpu, seat
from study.worker.signals import Stop

SECOND = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    "CUDA_VISIBLE_DEVICES": "2,3,6,7",
}


def test_a_seat_is_read_from_slurm():
    """Rank and address are Slurm's; the port depends on the meeting alone, and another life meets at another one."""
    found = seat(SECOND, meeting="launch 0 0")
    assert (found.rank, found.size, found.address) == (5, 8, "10.0.0.7")
    assert found.port in PORTS and found.port == seat({**SECOND, "SLURM_PROCID": "0"}, meeting="launch 0 0").port
    assert found.port != seat(SECOND, meeting="launch 0 1").port


def test_each_rank_sees_its_own_gpu():
    """By its place on its node; where Slurm gave it one already, or none, nothing changes."""
    assert own_gpu(SECOND) == {"CUDA_VISIBLE_DEVICES": "3"}
    assert own_gpu({**SECOND, "CUDA_VISIBLE_DEVICES": "3"}) == {}
    assert own_gpu({name: value for name, value in SECOND.items() if not name.startswith("CUDA")}) == {}


def company(store: distributed.Store, rank: int, folder: Path) -> Company:
    where = Seat(rank, 2, address="", port=0)
    return Company(where, store, SweepFolder(folder), log="", stop=Stop(), writer=Writer("launch", 0, 0), share=[])


def refused(crew: Company, problem: str) -> str:
    """What a rank raises when one of them has a problem."""
    try:
        with crew.opening():
            if problem:
                raise UserError(Problem(problem))
    except UserError as error:
        return error.summary()
    return ""


@pytest.mark.parametrize(("problems", "told"), [(("", ""), ("", "")), (("", "no GPU"), ("rank 1 of 2: no GPU", "no GPU"))])
def test_what_one_rank_refuses_all_refuse(tmp_path, problems, told):
    """The worker's journal then holds the reason, whichever rank has it."""
    store = distributed.HashStore()
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(refused, company(store, rank, tmp_path), problems[rank]) for rank in range(2)]
        assert tuple(future.result(timeout=60) for future in futures) == told


def test_the_first_failure_is_told_until_it_is_recorded(tmp_path):
    """Of ranks that fail one after the other the first has the cause."""
    folder, writer = SweepFolder(tmp_path), Writer("launch", 3, 0)
    for rank, moment in ((1, 20.0), (0, 10.0)):
        note_failure(folder, writer, RankFailure("run", rank, 2, host=f"n{rank}", reason="out of memory", log="", time=moment))
    assert failures(folder, {"run", "other"})["run"].told == "rank 0 of 2 (on n0): out of memory"
    assert failures(folder, {"other"}) == {}
    forget_failures(folder, "run")
    assert failures(folder, {"run"}) == {}


@pytest.mark.parametrize(("nodes", "gpus", "ranks"), [(1, 1, 1), (1, 8, 8), (4, 8, 32), (2, 0, 2)])
def test_a_profile_has_a_rank_for_each_gpu(nodes, gpus, ranks):
    """And one for each node where there are none."""
    assert Profile(nodes=nodes, gpus_per_node=gpus).ranks == ranks


def planned(tmp_path: Path, train: str):
    path = tmp_path / "sweep.yaml"
    model = "{patch_size: 4, dim: 8, depth: 1, heads: 1}"
    path.write_text(
        f"question: one?\ndata: {{name: digits}}\nbackbone: vit\nmodel: {model}\n"
        f"train: {{epochs: 1, distributed: ddp, {train}}}\nseeds: [0]\n"
    )
    return make_plan(read_sweep(path)).runs


def test_a_batch_is_cut_evenly_or_refused(tmp_path):
    """Before anything is submitted, with the nearest sizes that can be; other runs may have any batch."""
    runs = planned(tmp_path, "batch_size: 100, accumulate: 2")
    check_batches(runs, 2)
    with pytest.raises(UserError) as caught:
        check_batches(runs, 8)
    assert "8 ranks x 2 micro-batches" in caught.value.summary() and "valid: 96, 112" in caught.value.summary()
    assert check_batches(planned(tmp_path, "batch_size: 101"), 1) is None


def test_a_failure_that_nobody_has_recorded_yet_is_told(tmp_path):
    """Where no job requeues itself the run is missing, and status says why instead of that its worker died."""
    folder, share = SweepFolder(tmp_path), [[{"run_id": "run"}, {"run_id": "other"}]]
    made = Launch("launch", "slurm", plan="p", code="c", tasks=1, tasks_per_job=1, device="cpu", provenance={}, ranks=2)
    write_launch(folder, made, share)
    failure = RankFailure("run", 1, 2, host="n2", reason="out of memory", log="n2.err", time=0.0)
    note_failure(folder, Writer("launch", 0, 0), failure)
    nobody = Life(working=frozenset(), settling=frozenset(), jobs=(), words={})
    first, second = gaps(folder, ["run", "other"], nobody)
    assert (first.reason, first.log) == ("rank 1 of 2 (on n2): out of memory; the next launch records it", "n2.err")
    assert second.runs == ("other",) and "rank" not in second.reason
