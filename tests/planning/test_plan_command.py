"""What `study.plan` promises before anything is queued: totals, hours, a first training step, budgets of seconds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from study import backbones
from study.backbones import build_backbone
from study.config.sweep_file import read_sweep
from study.plan import main
from study.planning.planned_run import representatives
from study.planning.sweep_plan import Plan, make_plan
from study.planning.traced_cost import count_cost, verify_costs
from study.records.benchmark_file import Benchmark, InputSpeed, Speed
from study.records.sweep_folder import write_whole

SWEEP = """\
question: which?
device: cpu
data: {name: digits}
model: {depth: 1, patch_size: 4}
train: {epochs: 3, batch_size: 32}
backbones:
  convmixer: {model: {kernel_size: 3}}
  vit: {model: {heads: 1}}
axes:
  backbone: [vit, convmixer, mlp_mixer]
  model.dim: [8, 16, 24]
seeds: [0, 1]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder of its own, with the sweep in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path


def planned(*overrides: str) -> Plan:
    return make_plan(read_sweep(Path("sweep.yaml"), overrides))


def screen(capsys, *words: str, status: int = 0) -> str:
    """What the command prints to whom it should: a plan to standard output, mistakes to standard error."""
    assert main(["sweep.yaml", *words]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out if status == 0 else captured.err


def made_up(plan: Plan, *, seconds: dict[tuple[str, int], float], precision: str = "fp32") -> Benchmark:
    """A benchmark in which a training step of 32 images takes the seconds given by backbone and width."""
    speeds = [
        Speed(
            label=run.label,
            backbone=run.run.backbone,
            model=run.run.model.model_dump(mode="json"),
            precision=precision,
            batch_size=32,
            memory_layout="contiguous",
            train_step_seconds=(seconds[run.run.backbone, run.run.model.dim],),
            inference_step_seconds=(0.032,),
            inference_latency_seconds=(0.001,),
            peak_memory_mib=None,
        )
        for run in plan.runs
        if run.run.seed == 0 and (run.run.backbone, run.run.model.dim) in seconds
    ]
    augment = plan.runs[0].run.augment.model_dump(mode="json")
    return Benchmark(
        sweep="sweep",
        began="2026-01-02T10:15:00Z",
        rounds=1,
        device="cuda",
        device_name="abacus",
        fingerprint={},
        provenance={},
        architectures=tuple(speeds),
        inputs=(InputSpeed(augment=augment, channels=1, image_size=8, images_per_second=(1000.0,)),),
    )


STEPS = {
    (backbone, dim): dim * factor / 1000
    for backbone, factor in (("vit", 1.0), ("convmixer", 2.0), ("mlp_mixer", 1.5))
    for dim in (8, 16, 24)
}


def test_totals_are_those_of_what_would_be_built(capsys):
    """Runs, image passes and FLOPs: traced in the built modules, times epochs, images of full batches and three."""
    plan = planned()
    macs = sum(count_cost(build_backbone(run.run.model), image_size=8, in_channels=1).macs for run in plan.runs)
    output = screen(capsys)
    assert f"18 runs, 2 seeds, {18 * 3 * 992:,} image passes" in output
    assert f"{2 * 3 * macs * 3 * 992 / 1e9:,.2f} GFLOPs" in output
    assert "digits at 8 px (1,018 train, 180 val, 599 test); 3 epochs" in output


def test_totals_have_the_unit_that_suits_them(capsys):
    """No total is rounded to 0.00, and one is singular."""
    output = screen(capsys, "seeds=[0]", "backbone=vit", "model.dim=8", "train.epochs=1")
    assert "1 run, 1 seed, 992 image passes" in output and "; 1 epoch;" in output and " 0.00 " not in output.splitlines()[-1]
    many = screen(capsys, "train.epochs=1000", "model.depth=10", "model.dim=[64,128]")
    assert "11.90 M image passes" in many and " TFLOPs" in many


def test_varied_epochs_are_all_shown(capsys):
    """A sweep over schedule lengths names every length, not the first."""
    text = SWEEP.replace("train: {epochs: 3, ", "train: {").replace("seeds:", "  train.epochs: [2, 5]\nseeds:")
    Path("sweep.yaml").write_text(text, encoding="utf-8")
    assert "; 2, 5 epochs; not matched" in screen(capsys)


def test_a_long_plan_is_cut_and_shown_whole_on_request(capsys):
    """Of 70 widths 60 are shown, and how to see the rest; --all shows them."""
    widths = "model.dim=[" + ",".join(str(8 * n) for n in range(1, 71)) + "]"
    output = screen(capsys, "backbone=mlp_mixer", widths)
    assert "... and 10 more rows" in output and "    and 45 more" in output and " 560 " not in output
    whole = screen(capsys, "backbone=mlp_mixer", widths, "--all")
    assert " 560 " in whole and "width 560 − width 552" in whole


def test_device_hours_are_shown_once_measured(capsys):
    """Without a benchmark no hours; with one the sum over all runs, by hand: steps, augmentation, evaluation."""
    assert "device-hours" not in screen(capsys)
    write_whole(Path("runs/sweep/benchmarks/1.json"), made_up(planned(), seconds=STEPS).model_dump_json())
    training = 2 * sum(3 * 1018 * seconds / 32 for seconds in STEPS.values())
    rest = 18 * (3 * 1018 / 1000 + (3 * 180 + 599) / 1000)
    output = screen(capsys)
    assert f"about {(training + rest) / 3600:.2g} device-hours on abacus for all 9 architectures" in output


def test_hours_of_a_part_say_of_which(capsys):
    """With four of nine architectures measured the plan says so."""
    some = {key: STEPS[key] for key in list(STEPS)[:4]}
    write_whole(Path("runs/sweep/benchmarks/1.json"), made_up(planned(), seconds=some).model_dump_json())
    assert "for 4 of 9 architectures (8 of 18 runs)" in screen(capsys)


def test_what_will_be_compared_stands_before_the_data(capsys):
    """Primary contrasts by name; with two seeds there is no verdict, with three hardly any, and it is said."""
    output = screen(capsys, "effect_of_interest=0.5", "seeds=3")
    assert "effect of interest: 0.5 points" in output and "ConvMixer, averaged over width" in output
    assert "with 3 seeds, a difference is significant from" in output and "hardly any will be" in output
    assert "effect of interest: 1 point\n" in screen(capsys, "effect_of_interest=1", "seeds=5")
    assert "there are no verdicts, which need 3 at least" in screen(capsys, "seeds=2")
    assert "hardly" not in screen(capsys, "seeds=5") and "primary" not in screen(capsys, "backbone=vit", "model.dim=8")


def test_seeds_for_a_difference_follow_from_a_stated_spread(capsys):
    """Without the images' part a number, with independent errors on 599 images out of reach."""
    output = screen(capsys, "--detect", "1", "--sd", "0.4", "--accuracy", "98")
    assert "seeds that find 1.00 points in four of five studies, by the stated sd (" in output
    assert re.search(r"if both sides err on the same images: \d+ seeds \(sd 0.40 points over seeds\)", output)
    error = 100 * (2 * 0.98 * 0.02 / 599) ** 0.5
    assert "independently, on 599 images: out of reach with these test images" in output
    assert f"standard error {error:.2f} points from the images" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detect", "1"], "runs/sweep: --detect: no pilot is recorded here: launch the sweep with a few seeds first"),
        (["--sd", "1"], "--sd: needs --detect"),
        (["--accuracy", "98"], "--accuracy: needs --detect"),
        (["--detect", "1", "--accuracy", "98"], "--accuracy: needs --sd"),
        (["--detect", "1", "backbone=vit", "model.dim=8"], "--detect: this sweep plans no contrast"),
    ],
)
def test_what_a_number_of_seeds_can_not_follow_from_is_refused(capsys, words, message):
    assert message in screen(capsys, *words, status=2)


@pytest.mark.parametrize("word", ["0", "100", "nan", "many", "-1"])
def test_a_difference_is_a_number_of_points(capsys, word):
    with pytest.raises(SystemExit):
        main(["sweep.yaml", f"--detect={word}"])
    assert "is not a number above 0 and below 100" in capsys.readouterr().err


def test_a_fraction_is_no_accuracy_in_percent(capsys):
    with pytest.raises(SystemExit):
        main(["sweep.yaml", "--detect=1", "--sd=0.4", "--accuracy=0.98"])
    assert "'0.98' is below 1 percent: 0.98 is written 98" in capsys.readouterr().err


def test_check_trains_every_architecture_for_one_step(capsys):
    """On the real digits, and nothing is left behind."""
    output = screen(capsys, "--check", "augment.mixup=0.2", "train.evaluate=ema", "train.warmup_epochs=2")
    assert "checked: 9 runs take a training step and are evaluated on cpu" in output
    assert "random images" not in output
    assert not Path("runs").exists()


def test_check_works_before_the_data_are_there(capsys):
    """CIFAR-10's shapes are known without a download: random images do, and it is said."""
    output = screen(capsys, "--check", "data.name=cifar10", "model.dim=8", "model.patch_size=16")
    assert "checked: 3 runs" in output and "on random images: cifar10 is not prepared" in output


def test_check_names_every_architecture_that_fails(capsys, monkeypatch):
    """Two backbones broken in training only, which no plan can see: all six of their architectures are reported, status 2."""

    def refuse(module: nn.Module, inputs) -> None:
        if module.training:
            raise RuntimeError(f"no kernel for {module.spec.backbone}")

    for name in ("convmixer", "mlp_mixer"):
        entry = backbones.BACKBONES[name]

        def broken(spec, construct=entry.construct):
            model = construct(spec)
            model.register_forward_pre_hook(refuse)
            return model

        monkeypatch.setitem(backbones.BACKBONES.own, name, replace(entry, construct=broken))
    output = screen(capsys, "--check", status=2)
    for dim in (8, 16, 24):
        assert f"convmixer patch_size=4 dim={dim}: RuntimeError: no kernel for convmixer" in output
        assert f"mlp_mixer patch_size=4 dim={dim}: RuntimeError: no kernel for mlp_mixer" in output
    assert "vit" not in output


def test_representatives_have_every_architecture_and_every_recipe():
    """What a check leaves out differs from a checked run in epochs, rates or seeds alone."""
    (Path.cwd() / "sweep.yaml").write_text(
        SWEEP.replace(
            "seeds:",
            """\
  train.lr: [1e-3, 3e-3]
  train.evaluate: [last, ema]
  augment.mixup: [0.0, 0.3]
seeds:""",
        ),
        encoding="utf-8",
    )
    plan = planned()
    chosen = list(representatives(plan.runs))
    for trait in (lambda r: r.architecture, lambda r: r.run.train.evaluate, lambda r: r.run.augment.mixup):
        assert {trait(run) for run in chosen} == {trait(run) for run in plan.runs}
    assert len(chosen) < len(plan.runs) / 4


SECONDS = """\
question: which, at equal seconds?
device: cpu
data: {name: digits}
model: {depth: 1, patch_size: 4}
train: {epochs: 3, batch_size: 32}
match: {by: seconds, target: 0.75, tolerance: 1%, head_dim: 32, benchmark: speeds.json}
backbones:
  convmixer: {model: {kernel_size: 3}}
axes:
  backbone: [vit, mlp_mixer]
seeds: [0]
"""


@pytest.fixture
def of_seconds() -> Path:
    """A sweep at 0.75 s per 1,000 images, 24 ms a step, and the file that it names: three widths, heads of 32 features."""
    text = SWEEP.replace("  vit: {model: {heads: 1}}\n", "").replace("dim: [8, 16, 24]", "dim: [32, 64, 96]")
    Path("wide.yaml").write_text(text.replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    wide = make_plan(read_sweep(Path("wide.yaml")))
    steps = {
        (name, dim): dim * factor / 4000
        for (name, factor) in (("vit", 1.0), ("convmixer", 2.0), ("mlp_mixer", 1.5))
        for dim in (32, 64, 96)
    }
    write_whole(Path("speeds.json"), made_up(wide, seconds=steps).model_dump_json())
    Path("sweep.yaml").write_text(SECONDS, encoding="utf-8")
    return Path("speeds.json")


def test_budgets_of_seconds_are_looked_up(of_seconds, capsys):
    """24 ms a step are 96 features of ViT and 64 of Mixer: measured widths, no others, and exactly on budget."""
    plan = planned()
    assert {run.run.backbone: run.run.model.dim for run in plan.runs} == {"vit": 96, "mlp_mixer": 64}
    assert all(run.match.by == "seconds" and run.match.residual == pytest.approx(0) for run in plan.runs)
    assert "matched on training seconds per 1,000 images: 0.75" in screen(capsys)


def test_the_path_of_the_benchmark_is_no_part_of_a_runs_identity(of_seconds):
    """The same file under another name: the same runs."""
    Path("elsewhere.json").write_bytes(of_seconds.read_bytes())
    moved = planned("match.benchmark=elsewhere.json")
    assert [run.run_id for run in moved.runs] == [run.run_id for run in planned().runs]


@pytest.mark.parametrize(
    ("overrides", "output"),
    [
        (
            ["match.target=0.6"],
            [
                "vit (patch size 4, depth 1) was measured at no 0.6 training seconds per 1,000 images within "
                "1.0%; the nearest is 0.5 at width 64 (-16.7%)",
                "0.25 (patch size 4, width 32, depth 1)",
                "mlp_mixer",
            ],
        ),
        (
            ["model.depth=2"],
            [
                "no width of vit (patch size 4, depth 2, heads of 32) has been measured",
                "0.75 (patch size 4, width 96, depth 1)",
            ],
        ),
        (["train.precision=bf16"], ["nothing was measured for bf16 at batch size 32", "fp32 at batch size 32"]),
        (["match.benchmark=gone.json"], ["gone.json: this file is missing", "python -m study.benchmark SWEEP"]),
        (["match.benchmark=sweep.yaml"], ["sweep.yaml: this is damaged"]),
        (["match.target=fast"], ["a target in seconds is a number"]),
        (["match.by=params"], ["benchmark names the file of measurements: required by budgets in seconds"]),
        (["match.target=-1"], ["a target in seconds is above 0"]),
        (["model.dim=32"], ["the budget solves the width"]),
    ],
)
def test_mistakes_in_budgets_of_seconds_name_what_was_measured(of_seconds, capsys, overrides, output):
    """Status 2 and one screen, with the nearest that was measured where nothing fits."""
    shown = screen(capsys, *overrides, status=2)
    for words in output:
        assert words in shown
    assert len(shown.splitlines()) < 20


@pytest.mark.parametrize(("by", "target", "output"), [("params", "1.5", "an integer"), ("seconds", "0.5", "benchmark names")])
def test_targets_have_the_form_of_their_budget(capsys, by, target, output):
    """Parameters are whole numbers, and seconds need a file."""
    assert output in screen(capsys, f"match.by={by}", f"match.target={target}", status=2)


def test_every_architecture_of_a_plan_is_verified():
    """Twenty architectures of CIFAR-10's size, solved to a budget, with three seeds each; benchmarks/time_limits.py has 200."""
    Path("sweep.yaml").write_text(
        """\
question: is every architecture verified?
data: {name: cifar10}
model: {kernel_size: 3}
train: {epochs: 100}
match: {by: params, target: 600k}
axes:
  backbone: [vit, convmixer, mlp_mixer, convnext, metaformer]
  model.patch_size: [8, 16]
  model.depth: [2, 3]
seeds: [0, 1, 2]
""",
        encoding="utf-8",
    )
    plan = planned()
    assert verify_costs(planned.run.model for planned in plan.runs) == 20
    assert len(plan.runs) == 60 and len(plan.digest) == 16
