"""One run over two nodes: the curves of one process within rounding, and whatever happens to a rank, those of two undisturbed
ranks, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pandas as pd
import pytest
from scenarios import Outcome, Site, scenario, sweep

RANK_1_FAILS_ONCE = """\
import os, pathlib
mark = pathlib.Path({mark!r})
if os.environ.get("SLURM_PROCID") == "1" and not mark.exists():
    import torch
    steps = 0
    step = torch.optim.AdamW.step
    def fails(*words, **more):
        global steps
        steps += 1
        if steps == 50:
            mark.touch()
            raise RuntimeError("CUDA error: device-side assert triggered")
        return step(*words, **more)
    torch.optim.AdamW.step = fails
"""


def distributed(*, epochs: int, only: str = "") -> str:
    """Both backbones by two ranks each, or one of them alone."""
    text = sweep(epochs=epochs)
    if only:
        return text.replace(f"{only}: {{", f"{only}: {{train: {{distributed: ddp}}, ")
    return text.replace("lr: 3e-3", "lr: 3e-3, distributed: ddp")


def undisturbed(site: Site) -> Outcome:
    """The same sweep, trained before by two ranks that nothing happens to."""
    site.type("launch --wait --runs undisturbed")
    return Outcome.of(site.folder / "undisturbed/sweep")


def assert_same_as(site: Site, expected: Outcome) -> None:
    """Bit for bit, each run once, and every figure from two ranks."""
    found = Outcome.of(site.runs.path)
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
    pd.testing.assert_frame_equal(found.curves, expected.curves, check_exact=True)
    site.assert_recorded_once()
    assert {record["fingerprint"]["ranks"] for record in site.records() if record["status"] == "done"} == {2}


def processes_of_rank(site: Site, rank: int) -> list[int]:
    """The processes of this site's workers that are their rank so-and-so."""
    return [
        pid
        for pid in site.processes()
        if f"SLURM_PROCID={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    ]


@scenario
def test_two_nodes_train_as_one_process(site: Site) -> None:
    """A job of two ranks on two nodes has the table and curves of one local process at the same batch, within rounding; a
    run of the same sweep that one process trains is in an array of its own."""
    site.write(distributed(epochs=4, only="convmixer"))
    site.set(nodes=2)
    assert "train.batch_size" in site.type("launch train.batch_size=51", status=2)
    scripts = site.type("launch --dry-run")
    for line in ("1 workers of 2 ranks", "--nodes=1", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1"):
        assert line in scripts
    printed = site.type("launch")
    assert "1 job," in printed and "1 job of 2 ranks," in printed
    site.await_jobs_end()
    found, expected = Outcome.of(site.runs.path), site.twins.of(sweep(epochs=4))
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=False, rtol=1e-5)
    pd.testing.assert_frame_equal(found.curves, expected.curves, check_exact=False, rtol=1e-5)
    site.assert_recorded_once()
    ranks = {record["run"]["backbone"]: record["fingerprint"]["ranks"] for record in site.records()}
    assert ranks == {"convmixer": 2, "vit": 1}
    assert "Nothing is left to start" in site.type("launch")


@pytest.mark.slow
@scenario
def test_preempted_ranks(site: Site) -> None:
    """Both ranks stop after the same step, one of them saves, and the job comes back and goes on from there."""
    site.write(distributed(epochs=20))
    site.set(nodes=2)
    expected = undisturbed(site)
    site.type("launch")
    site.await_training()
    site.rack.submit("sleep 2", f"--partition={site.rack.high}", "--nodes=2", "--exclusive", "--output=/dev/null")
    site.await_jobs_end()
    assert_same_as(site, expected)
    [stopped, *_] = site.notes("stop")
    assert any(note["run_id"] == stopped["run_id"] and note["step"] > 0 for note in site.notes("begin"))
    assert all(record["provenance"]["exact"] for record in site.records())


@pytest.mark.slow
@scenario
def test_a_rank_is_killed(site: Site) -> None:
    """kill -9 of the second rank ends the first; the job requeues itself, and its next life finishes the share."""
    site.write(distributed(epochs=20))
    site.set(nodes=2)
    expected = undisturbed(site)
    site.type("launch")
    site.await_training()
    for pid in processes_of_rank(site, 1):
        os.kill(pid, signal.SIGKILL)
    site.await_jobs_end()
    assert_same_as(site, expected)
    assert len(site.lives()) == 2


@pytest.mark.slow
@scenario
def test_a_rank_fails(site: Site) -> None:
    """An exception on the second rank ends both; the job's next life records the run as failed, with the rank, the node and
    the reason, and goes on with the share; --retry failed tries the run again."""
    site.write(distributed(epochs=20))
    site.set(nodes=2)
    expected = undisturbed(site)
    (site.folder / "faults").mkdir()
    (site.folder / "faults/sitecustomize.py").write_text(RANK_1_FAILS_ONCE.format(mark=str(site.folder / "failed")))
    site.set(setup=[f"export PYTHONPATH={site.folder}/faults:$PYTHONPATH"])
    site.type("launch")
    site.await_jobs_end()
    [failed, done] = site.records()
    assert (failed["status"], done["status"]) == ("failed", "done")
    node = site.rack.nodes[1]
    assert failed["reason"] == f"rank 1 of 2 (on {node}): RuntimeError: CUDA error: device-side assert triggered"
    assert "device-side assert" in Path(failed["log"]).read_text()
    assert not list(site.runs.launches.glob("*/failures/*"))
    site.type("launch --settled --retry failed --wait")
    assert_same_as(site, expected)
