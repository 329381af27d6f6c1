"""The ranks of one worker: rendezvous, refusals, failures, and the ranks that a launch requests."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from specimens import RUN
from torch import distributed

from study.config.sweep_file import read_sweep
from study.errors import Problem, UserError
from study.launcher.assignment import check_batch_sizes
from study.launcher.liveness import Liveness
from study.launcher.slurm.profile import Profile
from study.launcher.sweep_status import explain_missing_runs
from study.planning.sweep_plan import make_plan
from study.records.ledger import Launch, ShareEntry, write_launch
from study.records.plan_file import PlannedEntry
from study.records.rank_failures import RankFailure, read_rank_failures, remove_rank_failures, write_rank_failure
from study.records.sweep_folder import SweepFolder, Writer
from study.training.distributed import PeerLost
from study.worker.process_group import PORTS, MultiProcess, RankInfo, select_own_gpu
from study.worker.signals import Stop

SECOND = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    "CUDA_VISIBLE_DEVICES": "2,3,6,7",
}


def test_rank_info_is_read_from_slurm():
    """Rank and address are Slurm's; the port depends on the job key alone, so a restarted worker gets another one."""
    found = RankInfo.from_slurm(SECOND, job_key="launch 0 0")
    assert (found.rank, found.size, found.address) == (5, 8, "10.0.0.7")
    first = RankInfo.from_slurm({**SECOND, "SLURM_PROCID": "0"}, job_key="launch 0 0")
    assert found.port in PORTS and found.port == first.port
    assert found.port != RankInfo.from_slurm(SECOND, job_key="launch 0 1").port


def test_each_rank_sees_its_select_own_gpu():
    """By its local rank; if Slurm gave it one already, or none, nothing changes."""
    assert select_own_gpu(SECOND) == {"CUDA_VISIBLE_DEVICES": "3"}
    assert select_own_gpu({**SECOND, "CUDA_VISIBLE_DEVICES": "3"}) == {}
    assert select_own_gpu({name: value for name, value in SECOND.items() if not name.startswith("CUDA")}) == {}


def make_group(store: distributed.Store, rank: int, folder: Path) -> MultiProcess:
    info = RankInfo(rank, 2, address="", port=0)
    return MultiProcess(info, store, SweepFolder(folder), log="", stop=Stop(), writer=Writer("launch", 0, 0), share=[])


def set_up(group: MultiProcess, problem: str) -> str:
    """The error that a rank raises when one of them has a problem."""
    try:
        with group.setup():
            if problem:
                raise UserError(Problem(problem))
    except UserError as error:
        return error.summary()
    return ""


@pytest.mark.parametrize(("problems", "raised"), [(("", ""), ("", "")), (("", "no GPU"), ("rank 1 of 2: no GPU", "no GPU"))])
def test_all_ranks_refuse_if_one_does(tmp_path, problems, raised):
    """The worker's journal then has the reason, whichever rank it comes from."""
    store = distributed.HashStore()
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(set_up, make_group(store, rank, tmp_path), problems[rank]) for rank in range(2)]
        assert tuple(future.result(timeout=60) for future in futures) == raised


def test_what_the_system_refuses_a_rank_is_no_failure_of_the_run(tmp_path, monkeypatch):
    """Rank 0 hears of it instead of a crash of its worker, which would count as the run's, and no failure is left."""

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr("os._exit", leave)
    store, entry = distributed.HashStore(), ShareEntry(PlannedEntry("run", run={}, cost={}, match={}))
    monkeypatch.setattr(MultiProcess, "_ranks", lambda _: SimpleNamespace(broadcast=lambda _: None))
    second, first = make_group(store, 1, tmp_path), make_group(store, 0, tmp_path)
    with pytest.raises(SystemExit), second.training(entry, describe=str):
        raise OSError(errno.EIO, "Input/output error", "/data/train.npy")
    with (
        pytest.raises(OSError, match=r"Input/output error: '/data/train.npy .rank 1 of 2, on "),
        first.training(entry, describe=str),
    ):
        raise PeerLost
    assert read_rank_failures(SweepFolder(tmp_path), {"run"}) == {}
    with pytest.raises(OSError, match="full"), make_group(distributed.HashStore(), 0, tmp_path).training(entry, describe=str):
        raise OSError("full")
    with pytest.raises(SystemExit), make_group(distributed.HashStore(), 0, tmp_path).training(entry, describe=str):
        raise PeerLost  # a crash


def test_the_first_rank_failure_counts_until_it_is_recorded(tmp_path):
    """If ranks fail one after the other, the first one has the cause."""
    folder, writer = SweepFolder(tmp_path), Writer("launch", 3, 0)
    for rank, moment in ((1, 20.0), (0, 10.0)):
        write_rank_failure(
            folder, writer, RankFailure("run", rank, 2, host=f"n{rank}", reason="out of memory", log="", time=moment)
        )
    assert read_rank_failures(folder, {"run", "other"})["run"].message == "rank 0 of 2 (on n0): out of memory"
    assert read_rank_failures(folder, {"other"}) == {}
    remove_rank_failures(folder, "run")
    assert read_rank_failures(folder, {"run"}) == {}


@pytest.mark.parametrize(("nodes", "gpus", "ranks"), [(1, 1, 1), (1, 8, 8), (4, 8, 32), (2, 0, 2)])
def test_a_profile_has_a_rank_for_each_gpu(nodes, gpus, ranks):
    """And one for each node without GPUs."""
    assert Profile(nodes=nodes, gpus_per_node=gpus).ranks == ranks


def planned(tmp_path: Path, train: str):
    path = tmp_path / "sweep.yaml"
    model = "{patch_size: 4, dim: 8, depth: 1, heads: 1}"
    path.write_text(
        f"question: one?\ndata: {{name: digits}}\nbackbone: vit\nmodel: {model}\n"
        f"train: {{epochs: 1, distributed: ddp, {train}}}\nseeds: [0]\n"
    )
    return make_plan(read_sweep(path)).runs


def test_a_batch_is_divided_evenly_or_refused(tmp_path):
    """Before anything is submitted, with the nearest valid sizes; other runs may have any batch size."""
    runs = planned(tmp_path, "batch_size: 100, accumulate: 2")
    check_batch_sizes(runs, 2)
    with pytest.raises(UserError) as caught:
        check_batch_sizes(runs, 8)
    assert "8 ranks x 2 micro-batches" in caught.value.summary() and "valid: 96, 112" in caught.value.summary()
    assert check_batch_sizes(planned(tmp_path, "batch_size: 101"), 1) is None


def test_status_shows_a_rank_failure_that_is_not_recorded_yet(tmp_path):
    """If no job requeues itself the run is missing, and status shows the rank's failure instead of a crashed worker."""
    folder = SweepFolder(tmp_path)
    share = [[ShareEntry(PlannedEntry(run_id, run=RUN, cost={}, match={})) for run_id in ("run", "other")]]
    made = Launch("launch", "slurm", plan="p", code="c", tasks=1, tasks_per_job=1, device="cpu", provenance={}, ranks=2)
    write_launch(folder, made, share)
    failure = RankFailure("run", 1, 2, host="n2", reason="out of memory", log="n2.err", time=0.0)
    write_rank_failure(folder, Writer("launch", 0, 0), failure)
    nobody = Liveness(alive=frozenset(), settling=frozenset(), jobs=(), last_states={})
    first, second = explain_missing_runs(folder, ["run", "other"], nobody)
    assert (first.reason, first.log) == ("rank 1 of 2 (on n2): out of memory; the next launch records it", "n2.err")
    assert second.runs == ("other",) and "rank" not in second.reason
