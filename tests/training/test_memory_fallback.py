"""A batch that doesn't fit is cut where that's the same training, and refused with the size that would fit where it isn't."""

from __future__ import annotations

import pytest
import torch
from toy_runs import Fate, assert_same_bits, attempt, finished, toy_run

from study.backbones.base import Backbone
from study.training.memory_fallback import OutOfMemory, halve_sizes, is_out_of_memory


@pytest.fixture
def small_device(monkeypatch):
    """A device on which no training step of more than five images fits."""
    forward = Backbone.forward

    def limited(self, images):
        if self.training and len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")
        return forward(self, images)

    monkeypatch.setattr(Backbone, "forward", limited)


def test_a_large_batch_is_cut_and_noted(small_device, tmp_path):
    """16 images are trained as 4 micro-batches of 4: the bits of a run that was configured so, and a note that says it."""
    outcome = finished(toy_run("vit"), tmp_path)
    assert "didn't fit into memory: trained as 4 micro-batches" in outcome.notes[0]
    assert outcome.fingerprint["micro_batches"] == 4 and outcome.exact
    assert_same_bits(outcome, finished(toy_run("vit", accumulate=4), tmp_path / "configured"))


def test_a_cut_run_resumes_exactly(small_device, tmp_path):
    """Interrupted and continued it's cut in the same way, which is no change of the execution."""
    assert attempt(toy_run("vit"), tmp_path, fate=Fate(interrupt_after=4)) is None
    outcome = attempt(toy_run("vit"), tmp_path, restart=1)
    assert outcome.exact and [resume.step for resume in outcome.resumes] == [4]
    assert_same_bits(outcome, finished(toy_run("vit"), tmp_path / "twin"))


def test_with_batch_norm_the_fitting_size_is_named(small_device, tmp_path):
    """Micro-batches would train another ConvMixer, so the run fails with the batch size that its user can choose."""
    with pytest.raises(OutOfMemory, match=r"a batch of 16 .* train\.batch_size=4 would .*BatchNorm"):
        attempt(toy_run("convmixer"), tmp_path)


def test_nothing_fits(monkeypatch, tmp_path):
    """Where not even one image fits, that is said."""

    def full(self, images):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Backbone, "forward", full)
    with pytest.raises(OutOfMemory, match="not even one image"):
        attempt(toy_run("vit"), tmp_path)


def test_other_errors_are_passed_on(monkeypatch, tmp_path):
    """An error that isn't about memory is raised as it is, at once."""

    def broken(self, images):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Backbone, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        attempt(toy_run("vit"), tmp_path)


def test_a_full_cpu_is_recognised_by_its_words():
    """torch raises a plain RuntimeError on a CPU; asked for a petabyte it shows today's words."""
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(refusal.value)


@pytest.mark.parametrize(
    ("batch_size", "part", "expected"),
    [(16, 16, [8, 4, 2, 1]), (500, 500, [250, 125, 50, 25, 10, 5, 2, 1]), (12, 4, [2, 1]), (7, 7, [1]), (1, 1, [])],
)
def test_parts_are_equal_and_halve(batch_size, part, expected):
    """Every part divides the batch and is at most half of the one before."""
    assert list(halve_sizes(batch_size, part)) == expected
