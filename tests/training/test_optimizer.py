"""What moves the weights: decay where it belongs, AdamW as in its paper, averages as in torch's own AveragedModel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from toy_runs import toy_run

from study.backbones import build_backbone, specify
from study.backbones.weight_files import convert_from_timm
from study.config.options import TrainOptions
from study.data.torchvision_schema import declare_missing_operators
from study.training.optimizer import build_optimizer, restore_optimizer, set_learning_rate
from study.training.state import WeightAverage, warm_up_decay

declare_missing_operators()

import timm  # noqa: E402  the schemas come first
from timm.optim import param_groups_layer_decay  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize("backbone", ["convmixer", "vit", "mlp_mixer"])
def test_decay_acts_on_matrices_alone(backbone):
    """By default kernels and matrices decay; norms, biases, position embeddings and class tokens don't. `all`: all do."""
    model = build_backbone(toy_run(backbone).model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for decay in ("matrices", "all"):
        optimizer = build_optimizer(model, TrainOptions(epochs=1, weight_decay=0.3, decay=decay), device=CPU)
        decayed = {names[p] for g in optimizer.param_groups for p in g["params"] if g["weight_decay"]}
        everything = {names[p] for g in optimizer.param_groups for p in g["params"]}
        assert everything == set(names.values())
        expected = {name for name in everything if name.endswith("weight") and "norm" not in name}
        assert decayed == (everything if decay == "all" else expected)


def test_positions_and_class_tokens_do_not_decay():
    """They're stored as `1 n d`, and yet are offsets."""
    model = nn.Module()
    model.stem = nn.Module()
    model.stem.positions, model.stem.class_token = (nn.Parameter(torch.ones(1, n, 4)) for n in (5, 1))
    model.head = nn.Linear(4, 2)
    optimizer = build_optimizer(model, TrainOptions(epochs=1), device=CPU)
    decayed = [p for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]]
    assert len(decayed) == 1 and decayed[0] is model.head.weight


def test_frozen_parameters_are_left_out():
    """A parameter without gradient is neither moved nor decayed."""
    model = nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    optimizer = build_optimizer(model, TrainOptions(epochs=1), device=CPU)
    assert [len(g["params"]) for g in optimizer.param_groups] == [1]


def test_two_steps_are_those_of_the_paper():
    """Loshchilov & Hutter, algorithm 2, by hand in float64, with a learning rate that changes between the steps."""
    weight = torch.tensor([[1.0, -2.0]])
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(weight)
    train = TrainOptions(epochs=1, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6)
    optimizer = build_optimizer(model, train, device=CPU)
    m = v = torch.zeros(1, 2, dtype=torch.float64)
    expected = weight.double()
    for t, (rate, gradient) in enumerate([(0.1, [[0.5, 1.0]]), (0.02, [[-1.0, 2.0]])], start=1):
        model.weight.grad = torch.tensor(gradient)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        g = torch.tensor(gradient, dtype=torch.float64)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-6)
        expected = expected - rate * 0.1 * expected - rate * step
    torch.testing.assert_close(model.weight.detach().double(), expected, rtol=1e-6, atol=1e-7)


def test_nesterovs_steps_are_by_hand():
    """Sutskever et al., 2013, as torch writes it: v = mu v + g, step g + mu v, with the decay part of the gradient."""
    model = nn.Linear(2, 1, bias=False)
    expected = model.weight.detach().double().clone()
    train = TrainOptions(epochs=1, optimizer="sgd", momentum=0.8, weight_decay=0.1)
    optimizer = build_optimizer(model, train, device=CPU)
    velocity = torch.zeros(1, 2, dtype=torch.float64)
    for rate, gradient in [(0.1, [[0.5, 1.0]]), (0.02, [[-1.0, 2.0]])]:
        model.weight.grad = torch.tensor(gradient)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        g = torch.tensor(gradient, dtype=torch.float64) + 0.1 * expected
        velocity = 0.8 * velocity + g
        expected = expected - rate * (g + 0.8 * velocity)
    torch.testing.assert_close(model.weight.detach().double(), expected, rtol=1e-6, atol=1e-7)


MATRICES = {
    "convmixer": {"channel_mixing.convolution.weight"},
    "vit": {f"{part}.weight" for part in ("mixer.qkv", "mixer.out", "mixer.expand", "mixer.reduce")},
    "mlp_mixer": {f"{part}.weight" for part in ("mixer.mlp.expand", "mixer.mlp.reduce", "mixer.expand", "mixer.reduce")},
}


@pytest.mark.parametrize("backbone", MATRICES)
def test_muon_moves_the_matrices_of_blocks(backbone):
    """Each step, these move as by torch's Muon alone, 1x1 convolutions as matrices, and all else as by AdamW alone."""
    run = toy_run(backbone)
    model, twin = (build_backbone(run.model) for _ in range(2))
    train = TrainOptions(epochs=1, optimizer="muon", momentum=0.95, weight_decay=0.1)
    optimizer = build_optimizer(model, train, device=CPU)
    others = build_optimizer(twin, TrainOptions(epochs=1, weight_decay=0.1), device=CPU)
    chosen = {
        name: nn.Parameter(parameter.detach().flatten(1).clone())
        for name, parameter in model.named_parameters()
        if name.startswith("blocks.") and name.endswith(tuple(MATRICES[backbone]))
    }
    assert len(chosen) == 2 * len(MATRICES[backbone])
    oracle = torch.optim.Muon(chosen.values(), weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    generator = torch.Generator().manual_seed(0)
    for rate in (0.1, 0.03):
        for (name, parameter), own in zip(model.named_parameters(), twin.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            own.grad = parameter.grad.clone()
            if name in chosen:
                chosen[name].grad = parameter.grad.flatten(1).clone()
        oracle.param_groups[0]["lr"] = rate
        for each in (optimizer, others):
            set_learning_rate(each, rate)
            each.step()
        oracle.step()
    for (name, parameter), own in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), chosen[name].detach().view_as(own) if name in chosen else own.detach())
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_layers_learn_at_timms_rates(optimizer):
    """Each parameter of a ViT has timm's factor of the rate, 1 in the classifier, and timm's weight decay."""
    settings = {"image_size": 16, "num_classes": 4, "patch_size": 8, "depth": 3, "pooling": "class_token"}
    model = build_backbone(
        specify("vit", {**settings, "in_channels": 3, "dim": 8, "heads": 2, "registers": 2, "layer_scale": 0.1})
    )
    theirs = timm.models.VisionTransformer(
        img_size=16, num_classes=4, patch_size=8, depth=3, embed_dim=8, num_heads=2, reg_tokens=2, init_values=0.1
    )
    parts = param_groups_layer_decay(theirs, 0.3, no_weight_decay_list=theirs.no_weight_decay(), layer_decay=0.6)
    names = {id(parameter): name for name, parameter in theirs.named_parameters()}
    expected = {
        next(iter(convert_from_timm({names[id(each)]: each}, "vit"))): (part["lr_scale"], part["weight_decay"])
        for part in parts
        for each in part["params"]
    }
    train = TrainOptions(epochs=1, weight_decay=0.3, layer_decay=0.6, optimizer=optimizer)
    found = build_optimizer(model, train, device=CPU)
    set_learning_rate(found, 0.5)
    own = {
        parameter.data_ptr(): (group["lr"].item() / 0.5, group["weight_decay"])
        for group in found.param_groups
        for parameter in group["params"]
    }
    ours = {name: own[parameter.data_ptr()] for name, parameter in model.named_parameters()}
    assert ours.keys() == expected.keys()
    assert all(ours[name] == pytest.approx(expected[name]) for name in ours)


def test_a_restored_optimizer_goes_on_as_the_original():
    """After a round trip through its state dict the next step is equal in every bit."""
    one = nn.Linear(3, 3)
    optimizer = build_optimizer(one, TrainOptions(epochs=1), device=CPU)
    set_learning_rate(optimizer, 0.1)
    advance(one, optimizer)
    other = copy.deepcopy(one)
    twin = build_optimizer(other, TrainOptions(epochs=1), device=CPU)
    restore_optimizer(twin, copy.deepcopy(optimizer.state_dict()))
    for each, mover in ((one, optimizer), (other, twin)):
        set_learning_rate(mover, 0.05)
        advance(each, mover)
    assert torch.equal(one.weight, other.weight)


def advance(model: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def test_the_average_is_torchs():
    """`AveragedModel` with the same decay per update, weights and BatchNorm's statistics alike; counters are copied."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage(model, decay=0.7)
    oracle = AveragedModel(
        model,
        avg_fn=lambda mean, new, count: new if not mean.is_floating_point() else mean + (1 - decay) * (new - mean),
        use_buffers=True,
    )
    oracle.n_averaged.fill_(1)  # as of the initial weights
    optimizer = build_optimizer(model, TrainOptions(epochs=1), device=CPU)
    set_learning_rate(optimizer, 0.1)
    for step in range(12):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        decay = min(0.7, (1 + step) / (10 + step))
        average.update(model, step)
        oracle.update_parameters(model)
    torch.testing.assert_close(average.model.state_dict(), oracle.module.state_dict())
    assert average.model[1].num_batches_tracked == 12


def test_a_short_average_forgets_the_initial_weights():
    """The warm-up: after 100 updates under 1 % of the initial weights is left, where 0.999 ** 100 would be 90 %."""
    left = 1.0
    for step in range(100):
        left *= warm_up_decay(0.999, step)
    assert left < 0.01 and warm_up_decay(0.999, 10**6) == 0.999
