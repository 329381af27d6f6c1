"""Speeds are measured in turn, kept whole, joined to the table, and turned into hours by plain arithmetic."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from study.backbones import build_backbone
from study.benchmark import limit_memory, main
from study.benchmarking import timing
from study.config.options import Variant
from study.config.sweep_file import read_sweep
from study.cpu_kernels.freed_memory import keep_freed_memory
from study.errors import UserError
from study.launcher.assignment import assign_runs, draft_launch
from study.launcher.execution import decide_execution
from study.planning.runtime_estimate import OVERHEAD_MACS, describe_runtime, estimate_costs, estimate_seconds
from study.planning.sweep_plan import Plan, make_plan
from study.records import load_table
from study.records.benchmark_file import (
    BENCHMARK_COLUMNS,
    Benchmark,
    InputSpeed,
    Speed,
    benchmark_columns,
    newest_benchmark,
    read_benchmark,
)
from study.records.ledger import Launch, read_share, write_launch
from study.records.record import RunOptions
from study.records.sweep_folder import SweepFolder, write_new, write_whole
from study.training.augmentation import Target
from study.training.batches import TrainingBatches
from study.training.device import DeviceChoice

SWEEP = """\
question: how fast?
device: cpu
data: {name: digits}
model: {depth: 1, patch_size: 4}
train: {epochs: 4, batch_size: 16}
backbones:
  vit: {model: {heads: 1}}
  convmixer: {model: {kernel_size: 3}}
axes:
  backbone: [vit, convmixer]
  model.dim: [8, 12]
seeds: [0, 1]
"""


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    """Four architectures, eight runs; the working folder is temporary."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "LAP_SECONDS", 0.002)
    monkeypatch.setattr(timing, "INPUT_PIXELS", 64 * 32)
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return make_plan(read_sweep(Path("sweep.yaml")))


def options_of(run) -> RunOptions:
    return RunOptions.from_json(run.to_json())


def speed_of(run, *, batch_size: int = 16, factor: float = 1.0) -> Speed:
    """A made-up speed of a run's architecture: a step takes 2, 3, 4, 5 and 100 ms times `factor`."""
    steps = tuple(factor * ms / 1000 for ms in (2, 3, 4, 5, 100))
    return Speed(
        label=run.run_id,
        backbone=run.backbone,
        model=run.model.model_dump(mode="json"),
        precision="fp32",
        batch_size=batch_size,
        memory_layout="contiguous",
        train_step_seconds=steps,
        inference_step_seconds=(0.001,),
        inference_latency_seconds=(0.0005,),
        peak_memory_mib=None,
    )


def benchmark_of(*architectures: Speed, augment) -> Benchmark:
    fed = InputSpeed(augment=augment.model_dump(mode="json"), channels=1, image_size=8, images_per_second=(8000.0,))
    return Benchmark(
        sweep="sweep",
        began="2026-01-02T10:15:00Z",
        rounds=5,
        device="cpu",
        device_name="abacus",
        fingerprint={},
        provenance={},
        architectures=architectures,
        inputs=(fed,),
    )


def test_every_architecture_is_measured_in_every_round(plan, capsys):
    """Two seeds of four architectures: four entries, each with its rounds, its layout and a positive peak."""
    assert main(["sweep.yaml", "--rounds", "3", "--threads", "1"]) == 0
    (path,) = Path("runs/sweep/benchmarks").glob("*.json")
    found = read_benchmark(path)
    assert found.fingerprint["threads"] == 1 and found.rounds == 3 and found.device == "cpu"
    assert [speed.model["dim"] for speed in found.architectures] == [8, 12, 8, 12]
    assert {speed.backbone: speed.memory_layout for speed in found.architectures} == {
        "vit": "contiguous",
        "convmixer": "channels_last",
    }
    for speed in found.architectures:
        for figures in (speed.train_step_seconds, speed.inference_step_seconds, speed.inference_latency_seconds):
            assert len(figures) == 3 and min(figures) > 0
        assert speed.batch_size == 16 and speed.precision == "fp32"
        assert speed.peak_memory_mib is None or speed.peak_memory_mib > 0
    assert len(found.inputs) == 1
    printed = capsys.readouterr().out
    for speed in found.architectures:
        assert len([line for line in printed.splitlines() if line.startswith(f"{speed.label} ")]) == 1
        assert f"{speed.train_images_per_second:,.0f}" in printed and f"{speed.inference_images_per_second:,.0f}" in printed


def test_rounds_go_over_all_architectures_in_turn(plan, monkeypatch):
    """A machine that is slow for a while slows every architecture: no architecture is measured twice before all are."""
    order = []
    laps = timing.Laps(0.1, 0.1, 0.1, None, Variant(memory_layout="contiguous"))

    def noted(run, *, device, variant):
        order.append((run.backbone, run.model.dim))
        return laps

    monkeypatch.setattr(timing, "time_architecture", noted)
    assert main(["sweep.yaml", "--rounds", "3"]) == 0
    assert len(order) == 12
    assert order[:4] == order[4:8] == order[8:] and len(set(order)) == 4


def test_an_allocation_beyond_the_available_memory_fails():
    """And no more afterwards. Nothing would touch the bytes, so without the limit there is no end to them."""
    former = resource.getrlimit(resource.RLIMIT_DATA)
    with limit_memory():
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(limit, dtype=torch.uint8)  # of which a part is in use or freed and kept
    assert resource.getrlimit(resource.RLIMIT_DATA) == former


def test_what_does_not_fit_is_left_out_and_told(plan, monkeypatch, capsys):
    """An architecture that runs out of memory costs one try; the others are measured, and the status is not 0."""
    tries = []

    def narrow_only(run, *, device, variant):
        tries.append(run.model.dim)
        if run.model.dim == 12 and run.backbone == "vit":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB")
        return timing.Laps(0.1, 0.1, 0.1, None, Variant(memory_layout="contiguous"))

    monkeypatch.setattr(timing, "time_architecture", narrow_only)
    assert main(["sweep.yaml", "--rounds", "2"]) == 1
    screen = capsys.readouterr().out
    assert "vit patch_size=4 dim=12" in screen and "a batch of 16 doesn't fit into memory" in screen
    found = newest_benchmark(Path("runs/sweep/benchmarks"))
    assert len(found.architectures) == 3 and len(found.left_out) == 1
    assert len(tries) == 7


def test_batch_size_on_the_command_line_goes_before_the_runs_own(plan):
    """--batch-size 4 measures batches of four, and the table joins them by architecture all the same."""
    assert main(["sweep.yaml", "--rounds", "1", "--batch-size", "4", "--threads", "1"]) == 0
    found = newest_benchmark(Path("runs/sweep/benchmarks"))
    assert {speed.batch_size for speed in found.architectures} == {4}
    assert all(found.speed(options_of(planned.run)) is not None for planned in plan.runs)


def test_a_lap_is_the_mean_of_its_calls(monkeypatch):
    """With a clock that only the work moves, a call of 7 ms is measured as 7 ms, after the warm-up's slower calls."""
    clock, costs = [0.0], iter([0.5, 0.007, *[0.007] * 1000])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work():
        clock[0] += next(costs)

    assert timing.time_lap(work, torch.device("cpu")) == pytest.approx(0.007)
    assert clock[0] - 0.507 >= timing.LAP_SECONDS


def test_timing_moves_no_weights(plan):
    """A timed training step is a real one with a rate of 0: gradients are there, weights and their decay are not applied."""
    run = plan.runs[0].run
    model = build_backbone(run.model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = timing.initial_state(model, run, device=torch.device("cpu"), epoch_steps=10)
    step = timing._training_step(state, run, images=timing.make_random_batch(run))
    step()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_peak_is_of_its_own_architecture(plan):
    """A narrow model measured after a wide one has the smaller peak, though the process keeps memory that it has freed."""
    keep_freed_memory()
    run = timing.with_batch_size(plan.runs[0].run, 1024)
    wide = replace(run, model=run.model.with_options({"dim": 512, "mlp_dim": 4096}))
    peaks = [timing.time_architecture(each, device=DeviceChoice("cpu")).peak_memory_mib for each in (wide, run)]
    if None not in peaks:  # the system doesn't tell it everywhere
        assert peaks[0] - peaks[1] > 20


def test_the_table_says_what_was_measured_and_nothing_else(plan):
    """Without a benchmark all its columns are missing; with one, rows have their architecture's median and spread, the
    interquartile range over the median as numpy computes it; an architecture that wasn't measured stays missing."""
    folder = SweepFolder(Path("runs/sweep"))
    write_new(folder.plans / f"{plan.digest}.json", plan.file.to_json())
    write_launch(folder, Launch("x", "local", plan.digest, "0f", 1, 1, device="cpu", provenance={}), [[]])
    assert load_table(folder.path)[list(BENCHMARK_COLUMNS)].isna().all(axis=None)
    measured = [speed_of(planned.run) for planned in plan.runs if planned.run.model.dim == 8]
    benchmark = benchmark_of(measured[0], measured[2], augment=plan.runs[0].run.augment)
    write_whole(folder.benchmarks / "20260102t101500-abacus.json", benchmark.model_dump_json())
    table = load_table(folder.path)
    known, unknown = table[table["dim"] == 8], table[table["dim"] == 12]
    assert unknown[list(BENCHMARK_COLUMNS)].isna().all(axis=None)
    assert (known["train_step_seconds"] == 0.004).all()
    assert (known["benchmark_train_images_per_second"] == 4000).all()
    low, high = np.percentile([2, 3, 4, 5, 100], [25, 75])
    assert known["benchmark_train_spread"].tolist() == pytest.approx([(high - low) / 4] * len(known))
    assert (known["inference_images_per_second"] == 16_000).all() and (known["inference_spread"] == 0).all()
    assert (known["inference_latency_seconds"] == 0.0005).all()
    assert known["benchmark_peak_memory_mib"].isna().all()
    assert (known["benchmark_device"] == "abacus").all() and (known["benchmark_batch_size"] == 16).all()


def test_the_newest_benchmark_counts(plan):
    """Two files: the one of the later time is read."""
    folder = Path("runs/sweep/benchmarks")
    run = plan.runs[0].run
    for name, factor in (("20260102t101500-b", 1.0), ("20260102t101501-a", 2.0)):
        benchmark = benchmark_of(speed_of(run, factor=factor), augment=run.augment)
        write_whole(folder / f"{name}.json", benchmark.model_dump_json())
    assert benchmark_columns(newest_benchmark(folder), options_of(run))["train_step_seconds"] == 0.008


def test_the_fastest_variant_is_handed_out(plan, monkeypatch):
    """`--variants` measures each architecture in every variant; plans and shares go by the one whose step was fastest."""
    fast = Variant(memory_layout="channels_last", compiled="default")

    def timed(run, *, device, variant):
        return timing.Laps(0.1 if variant == fast else 0.2, 0.1, 0.1, None, variant)

    monkeypatch.setattr(timing, "time_architecture", timed)
    assert main(["sweep.yaml", "--rounds", "1", "--variants"]) == 0
    found = newest_benchmark(Path("runs/sweep/benchmarks"))
    assert len(found.architectures) == 4 * 4
    run = options_of(plan.runs[0].run)
    assert found.speed(run).variant == found.best_variant(run) == fast
    folder = SweepFolder(Path("runs/sweep"))
    execution = decide_execution(folder, "cpu", threads=1, asked=None, here=False)
    draft = draft_launch(plan, folder, cluster="local", workers=1, execution=execution)
    launch = assign_runs(draft, plan, folder, runs=plan.runs)
    for entry in read_share(folder, (launch.id, 0)):
        assert (entry.device_name, entry.variant) == (found.device_name, fast)


def test_one_variant_alone_decides_nothing(plan):
    """Without --variants runs train as the rule says, also where the rule changes later."""
    run = plan.runs[0].run
    benchmark = benchmark_of(speed_of(run), augment=run.augment)
    assert benchmark.speed(options_of(run)) is not None and benchmark.best_variant(options_of(run)) is None


def test_a_runs_own_batch_size_counts_first(plan):
    """Measured at two batch sizes, the run's own is taken; at two others, neither is."""
    run = plan.runs[0].run
    own, other, third = (speed_of(run, batch_size=size) for size in (16, 32, 64))
    assert benchmark_of(other, own, augment=run.augment).speed(options_of(run)) == own
    assert benchmark_of(other, augment=run.augment).speed(options_of(run)) == other
    assert benchmark_of(other, third, augment=run.augment).speed(options_of(run)) is None


def test_hours_are_plain_arithmetic(plan):
    """4 epochs of 1,018 images at 4,000/s, fed at 8,000/s; 180 validation images an epoch and 599 test images at 16,000/s."""
    run = plan.runs[0].run
    benchmark = benchmark_of(speed_of(run), augment=run.augment)
    expected = 4 * 1018 / 4000 + 4 * 1018 / 8000 + (4 * 180 + 599) / 16_000
    assert benchmark.run_seconds(options_of(run)) == pytest.approx(expected)
    refit = replace(run, train=run.train.model_copy(update={"fit_on": "train+val"}))
    expected = 4 * 1198 / 4000 + 4 * 1198 / 8000 + 599 / 16_000
    assert benchmark.run_seconds(options_of(refit)) == pytest.approx(expected)


def test_shares_are_balanced_by_seconds_only_where_all_are_known(plan):
    """Seconds and MACs are never mixed: with one architecture unmeasured, every cost is in MACs."""
    augment = plan.runs[0].run.augment
    every = {planned.architecture: speed_of(planned.run) for planned in plan.runs}
    whole = benchmark_of(*every.values(), augment=augment)
    seconds = estimate_seconds(plan.runs, whole)
    assert len(seconds) == 8 and estimate_costs(plan.runs, whole) == seconds
    assert "all 4 architectures" in describe_runtime(plan.runs, whole)
    part = benchmark_of(*list(every.values())[1:], augment=augment)
    assert "3 of 4 architectures (6 of 8 runs)" in describe_runtime(plan.runs, part)
    macs = {run.run_id: run.image_passes * (run.cost.training_macs + OVERHEAD_MACS) for run in plan.runs}
    assert estimate_costs(plan.runs, part) == estimate_costs(plan.runs, None) == macs


def test_pending_runs_are_estimated_with_a_candidates_levels(plan):
    """Which augmentation is tuned hardly changes what a final run takes, so the estimate includes final runs."""
    text = SWEEP + "tune: {axes: {augment.crop: [0, 1]}, seeds: [7]}\n"
    Path("tuned.yaml").write_text(text, encoding="utf-8")
    tuned = make_plan(read_sweep(Path("tuned.yaml")))
    every = {planned.architecture: speed_of(planned.run) for planned in tuned.pending}
    benchmark = benchmark_of(*every.values(), augment=tuned.pending[0].run.augment)
    assert tuned.pending and len(estimate_seconds(tuned.pending, benchmark)) == len(tuned.pending)


@pytest.mark.parametrize("text", ["", "{}", "[]", "question: x"])
def test_another_file_is_refused(text, tmp_path):
    """A file that is no benchmark is told by name, not by a traceback."""
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match=r"b\.json: (this is damaged|not what) .*study\.benchmark SWEEP"):
        read_benchmark(tmp_path / "b.json")
    with pytest.raises(UserError, match=r"c\.json: this file is missing"):
        read_benchmark(tmp_path / "c.json")


def test_a_device_that_is_meant_and_missing_is_refused(plan, monkeypatch, capsys):
    """`device: cuda` without a usable GPU is status 2, never a benchmark of the CPU by surprise."""
    monkeypatch.setattr("study.training.device.find_cuda_fault", lambda: "no driver")
    assert main(["sweep.yaml", "device=cuda"]) == 2
    assert "CUDA requested but unavailable" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_input_speed_counts_the_augmented_images_of_an_epoch(plan, monkeypatch):
    """An epoch of 32 images has one whole batch of 24: these are counted, fed through the run's own augmentation."""
    run = timing.with_batch_size(plan.runs[0].run, 24)
    run = replace(run, augment=run.augment.model_copy(update={"mixup": 0.4}))
    fed: list[tuple[torch.Tensor, Target]] = []

    class Recorded(TrainingBatches):
        def epoch(self, epoch, *, first=0):
            for batch in super().epoch(epoch, first=first):
                fed.append(batch)
                yield batch

    def take_two_seconds(work, device):
        work()
        return 2.0

    monkeypatch.setattr(timing, "INPUT_PIXELS", 32 * 8 * 8)
    monkeypatch.setattr(timing, "TrainingBatches", Recorded)
    monkeypatch.setattr(timing, "time_lap", take_two_seconds)
    assert timing.time_input(run, device=DeviceChoice("cpu")) == 24 / 2.0
    ((images, target),) = fed
    assert images.shape == (24, 1, 8, 8) and images.dtype == torch.float32
    assert target.partners is not None
