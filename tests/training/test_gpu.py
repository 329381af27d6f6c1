"""What only a GPU can show: steps that the host doesn't wait for, exact resumes there, and the CPU's figures."""

from __future__ import annotations

import pytest
import torch
from toy_runs import Fate, assert_same_bits, attempt, splits, toy_run

from study.backbones import build_backbone
from study.training import batches
from study.training.device import DeviceChoice, autocast
from study.training.memory_layout import choose_memory_format
from study.training.optimizer import set_learning_rate
from study.training.state import initial_state
from study.training.step import optimizer_step

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
DETERMINISTIC = DeviceChoice("cuda", deterministic=True)
AUGMENT = {"flip": True, "crop": 2, "randaugment_n": 2, "erasing": 0.5, "mixup": 0.3, "cutmix": 0.5, "color_jitter": 0.2}


@pytest.fixture
def deterministic_matrix_products(monkeypatch):
    """What the deterministic mode of cuBLAS needs before its first use."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
@pytest.mark.parametrize(
    "options", [{}, {"precision": "fp16", "grad_clip": 1.0}, {"precision": "bf16", "evaluate": "ema"}], ids=str
)
def test_no_step_makes_the_host_wait(monkeypatch, backbone, options):
    """From the second step on nothing synchronises: data, augmentation, learning rate, forward, backward, optimizer, EMA."""
    monkeypatch.setattr(batches, "AUGMENTATION_PIXELS", {"cuda": 1})
    run = toy_run(backbone, augment=AUGMENT, batch_size=4, **options)
    model = build_backbone(run.model).to(CUDA)
    feed = batches.TrainingBatches(run, splits(), device=CUDA, layout=choose_memory_format(model))
    state = initial_state(model, run, device=CUDA, epoch_steps=feed.epoch_steps)
    how = {"options": run.train, "micro_batches": 1, "autocast": autocast(run.train.precision, CUDA)}
    epoch = feed.epoch(0)
    optimizer_step(state, *next(epoch), **how)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, target in epoch:
            set_learning_rate(state.optimizer, 0.001)
            optimizer_step(state, images, target, **how)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == feed.epoch_steps


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_resume_is_exact_in_deterministic_mode(deterministic_matrix_products, tmp_path, backbone, precision):
    """Interrupted in the middle of an epoch, a run ends with the bits of its uninterrupted twin."""
    run = toy_run(backbone, augment=AUGMENT, precision=precision)
    stopped = attempt(run, tmp_path, fate=Fate(interrupt_after=5), device=DETERMINISTIC)
    assert stopped is None
    survivor = attempt(run, tmp_path, restart=1, device=DETERMINISTIC)
    assert survivor.exact and survivor.resumes[0].step == 5
    assert_same_bits(survivor, attempt(run, tmp_path / "twin", device=DETERMINISTIC))


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
def test_one_epoch_is_the_cpus_within_rounding(tmp_path, backbone):
    """In fp32 a GPU sees the same images in the same order and computes the same losses."""
    run = toy_run(backbone, epochs=1, augment=AUGMENT, eps=1e-3)
    on_cpu, on_gpu = attempt(run, tmp_path / "cpu"), attempt(run, tmp_path / "gpu", device=DeviceChoice("cuda"))
    assert on_gpu.curves["train_loss"] == pytest.approx(on_cpu.curves["train_loss"], rel=1e-4)
    assert on_gpu.val_loss == pytest.approx(on_cpu.val_loss, rel=1e-3)
