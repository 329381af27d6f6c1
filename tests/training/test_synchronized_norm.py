"""A norm over several processes is torch's norm of the whole batch: results, gradients and running statistics."""

from __future__ import annotations

import pytest
import torch
from several_ranks import run_on_ranks
from torch import nn

from study.backbones.layers import SequenceBatchNorm
from study.rng import stream
from study.training.distributed import MultipleRanks
from study.training.synchronized_norm import synchronize_norms

CHANNELS = 5
SHAPES = {"grid": (8, CHANNELS, 3, 4), "sequence": (8, 6, CHANNELS), "vector": (8, CHANNELS)}
KINDS = {"grid": nn.BatchNorm2d, "sequence": SequenceBatchNorm, "vector": nn.BatchNorm1d}


def numbers(kind: str, part: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Far from mean 0 and variance 1, and different in the two halves of the batch."""
    drawn = torch.from_numpy(stream("norm", kind, part).normal(size=shape))
    return drawn * torch.linspace(0.5, 4, shape[0], dtype=torch.float64).view(-1, *[1] * (len(shape) - 1)) + 3


def model_of(kind: str) -> nn.Sequential:
    norm = KINDS[kind](CHANNELS)
    inner = norm.norm if kind == "sequence" else norm
    for name in ("weight", "bias"):
        getattr(inner, name).data = torch.from_numpy(stream("norm", name).normal(size=CHANNELS)).float()
    return nn.Sequential(norm).double()


def normed_twice(model: nn.Module, features: torch.Tensor, gradient: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two steps' worth: results, all gradients, and what the norm remembers, by name."""
    for _ in range(2):
        features = features.detach().requires_grad_()
        result = model(features)
        model.zero_grad()
        result.backward(gradient)
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    return {
        "result": result.detach(),
        "gradient": features.grad,
        **gradients,
        **model.state_dict(),
        "evaluated": model.eval()(features).detach(),
    }


def on_one_rank(ranks: MultipleRanks, kind: str) -> dict[str, torch.Tensor]:
    model = model_of(kind)
    synchronize_norms(model, device=ranks.device)
    halves = [numbers(kind, part, SHAPES[kind]).chunk(2)[ranks.rank] for part in ("features", "gradient")]
    return normed_twice(model, *halves)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_norm_as_one_does(tmp_path, kind):
    """In float64, within its rounding; rows are concatenated, gradients of weights add up, statistics are equal."""
    whole = normed_twice(model_of(kind), *(numbers(kind, part, SHAPES[kind]) for part in ("features", "gradient")))
    first, second = run_on_ranks(on_one_rank, tmp_path, kind)
    assert first.keys() == second.keys() == whole.keys()
    for name, expected in whole.items():
        if name in ("result", "gradient", "evaluated"):
            found = torch.cat([first[name], second[name]])
        elif name.startswith("gradient of"):
            found = first[name] + second[name]
        else:
            found = first[name]
            assert torch.equal(found, second[name])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def in_bf16(ranks: MultipleRanks) -> torch.dtype:
    model = nn.Sequential(nn.BatchNorm2d(CHANNELS))
    synchronize_norms(model, device=ranks.device)
    features = torch.ones(2, CHANNELS, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    model(features).sum().backward()
    return features.grad.dtype


def test_mixed_precision(tmp_path):
    """Features in bf16 are normed by weights in fp32, as torch does, and have gradients in bf16."""
    assert run_on_ranks(in_bf16, tmp_path) == [torch.bfloat16] * 2
