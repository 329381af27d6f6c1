"""A sweep is read strictly: every mistake is reported with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.cli.arguments import sweep_parser
from study.config.seeds import format_seeds
from study.config.sweep_file import read_sweep
from study.errors import UserError, nearest
from study.planning.sweep_plan import make_plan

GOOD = """\
question: which?
data: {name: digits}
model: {depth: 2}
train:
  epochs: 3
  lr: 1e-3
match: {by: params, target: 30k}
axes:
  backbone: [vit, convmixer]
  model.patch_size: [1, 2]
seeds: [0, 1]
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(tmp_path: Path, text: str, *overrides: str) -> list:
    with pytest.raises(UserError) as caught:
        read_sweep(write(tmp_path, text), overrides)
    return list(caught.value.problems)


def test_values_arrive_with_their_places(tmp_path):
    """YAML 1.2: 1e-3 is a number, `off` is text; each value knows the line that gave it."""
    sweep = read_sweep(write(tmp_path, GOOD))
    assert sweep.name == "sweep"
    assert sweep.base["train.lr"].value == pytest.approx(0.001)
    assert sweep.base["train.lr"].place.endswith("sweep.yaml:6")
    assert [level.value for level in sweep.axes["model.patch_size"]] == [1, 2]
    assert sweep.seeds == (0, 1)


@pytest.mark.parametrize(
    ("broken", "line", "key", "suggestion"),
    [
        (GOOD.replace("seeds:", "seedz:"), 11, "seedz", "seeds"),
        (GOOD.replace("question: which?", "question: which?\ndevice: gpu"), 2, "device", None),
        (GOOD.replace("backbone: [vit", "backbones: [vit"), 9, "backbones", None),
        (GOOD.replace("seeds: [0, 1]", "seeds: [0, 0]"), 11, "seeds", None),
        (GOOD.replace("[1, 2]", "[1, 1]"), 10, "axes.model.patch_size", None),
        (GOOD.replace("[1, 2]", "[]"), 10, "axes.model.patch_size", None),
    ],
)
def test_a_mistake_names_line_and_key(tmp_path, broken, line, key, suggestion):
    """Unknown keys, wrong choices, repeated seeds or levels: file, line, key, and the nearest valid one."""
    found = problems(tmp_path, broken)
    matching = [p for p in found if p.key == key]
    assert matching, [str(p) for p in found]
    assert matching[0].place.endswith(f"sweep.yaml:{line}")
    if suggestion:
        assert f"did you mean {suggestion!r}" in str(matching[0])


def test_all_mistakes_of_form_are_reported_at_once(tmp_path):
    """Two wrong keys are two problems of one reading; that the right ones are missing is a consequence, and not reported."""
    found = problems(tmp_path, GOOD.replace("seeds:", "seedz:").replace("question", "qestion"), "epochs=3", "lr")
    assert {problem.key or problem.value for problem in found} == {"qestion", "seedz", "epochs", "lr"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "not valid YAML"),
        ("a: 1\na: 2", "duplicate key"),
        ("- a\n- b", "a mapping"),
        ("", "a mapping"),
        ("a:\n\t- b", "not valid YAML"),
        ("a: 2001-12-14", "only numbers"),
    ],
)
def test_broken_yaml_is_reported_without_a_traceback(tmp_path, text, message):
    """Torn brackets, duplicate keys, lists at the top, tabs and dates are problems, not exceptions of a library."""
    assert message in str(problems(tmp_path, text)[0])


def test_an_option_without_its_section_is_told_how_it_is_written(tmp_path):
    """`train.epochs: 2` is right on the command line and wrong at the top of a file."""
    [problem] = problems(tmp_path, GOOD + "train.warmup_epochs: 2\n")
    assert "in a file, an option stands in its section: train: {warmup_epochs: ...}" in problem.rule
    assert problem.place.endswith("sweep.yaml:12") and not problem.choices


def test_a_file_that_is_no_text_is_not_its_own_suggestion(tmp_path):
    """UTF-16 is named as such; no other sweep is offered for it."""
    path = tmp_path / "sweep.yaml"
    path.write_text(GOOD, encoding="utf-16")
    with pytest.raises(UserError) as caught:
        read_sweep(path)
    assert "not UTF-8 text" in str(caught.value) and "did you mean" not in str(caught.value)


def test_keys_for_anchors_stand_at_the_top(tmp_path):
    """`x-` keys hold what aliases repeat, as in Compose files, and are no options; below the top they are unknown."""
    text = "x-recipe: &recipe {epochs: 3, lr: 1e-3}\n" + GOOD.replace("train:\n  epochs: 3\n  lr: 1e-3\n", "train: *recipe\n")
    assert read_sweep(write(tmp_path, text)).base["train.epochs"].value == 3
    with pytest.raises(UserError, match=r"match.x-a: unknown key"):
        make_plan(read_sweep(write(tmp_path, GOOD.replace("match: {", "match: {x-a: 1, "))))


@pytest.mark.parametrize("spelling", ["~/images", "$HOME/images", "${HOME}/images"])
def test_home_and_variables_are_expanded_in_paths(tmp_path, spelling, monkeypatch):
    """The shell expands neither in `data.root=~/images`: no folder is called ~. What isn't known is refused."""
    monkeypatch.setenv("HOME", str(tmp_path))
    data = make_plan(read_sweep(write(tmp_path, GOOD), [f"data.root={spelling}", f"data.cache={spelling}/c"])).runs[0].run.data
    assert (data.root, data.cache) == (f"{tmp_path}/images", f"{tmp_path}/images/c")
    assert sweep_parser("plan", "").parse_args(["a.yaml", f"--runs={spelling}"]).runs == f"{tmp_path}/images"
    with pytest.raises(UserError, match=r"data.root: this path names a home directory or a variable that isn't known"):
        make_plan(read_sweep(write(tmp_path, GOOD), ["data.root=$NOWHERE/images"]))


def test_a_missing_file_names_the_sweeps_that_exist(tmp_path):
    """The nearest match is found among the files of the folder."""
    path = write(tmp_path, GOOD)
    with pytest.raises(UserError) as caught:
        read_sweep(path.with_name("swep.yaml"))
    assert str(path) in caught.value.summary()


def test_overrides_are_part_of_the_document(tmp_path):
    """A key of a section is replaced, an axis gets new levels or is fixed, seeds are a list."""
    sweep = read_sweep(write(tmp_path, GOOD), ["train.epochs=7", "model.patch_size=[2,4]", "seeds=[5]", "backbone=vit"])
    assert sweep.base["train.epochs"].value == 7
    assert sweep.base["train.epochs"].place.startswith("command line")
    assert [level.value for level in sweep.axes["model.patch_size"]] == [2, 4]
    assert "backbone" not in sweep.axes
    assert sweep.base["backbone"].value == "vit"
    assert sweep.seeds == (5,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "key=value"),
        ("epochs=3", "unknown key"),
        ("seeds=0", "seeds are a count"),
        ("seeds=[]", "seeds are a count"),
        ("seeds={from: 3}", "seeds are a count"),
        ("seeds=[0.5]", "integer"),
        ("question.deep=3", "holds no further keys"),
        ("question=", "string"),
        ("device=gpu", "valid: auto, cuda, cpu"),
        ("deterministic=no", "should be true or false"),
        ("effect_of_interest=0", "in points (above 0, below 100), or {error_ratio: R}"),
        ("effect_of_interest=true", "in points"),
        ("effect_of_interest={error_ratio: 0.9}", "R above 1"),
        ("effect_of_interest={ratio: 2}", "or {error_ratio: R}"),
    ],
)
def test_overrides_are_checked_as_strictly_as_the_file(tmp_path, override, message):
    """An override that the file would not be allowed to say is refused, and the word of the command line is named."""
    found = problems(tmp_path, GOOD, override)
    assert message in str(found[0])
    assert "command line" in found[0].place


@pytest.mark.parametrize(
    ("spelling", "seeds"), [("10", range(10)), ("{from: 100, count: 5}", range(100, 105)), ("[3, 1]", (3, 1)), ("1", (0,))]
)
def test_seeds_are_a_count_a_range_or_a_list(tmp_path, spelling, seeds):
    """The same in the file, on the command line and for trials; the compact spelling is read as the same seeds."""
    text = GOOD.replace("seeds: [0, 1]", f"seeds: {spelling}")
    assert read_sweep(write(tmp_path, text)).seeds == tuple(seeds)
    assert read_sweep(write(tmp_path, GOOD), [f"seeds={spelling}"]).seeds == tuple(seeds)
    assert read_sweep(write(tmp_path, GOOD), [f"seeds={format_seeds(seeds)}"]).seeds == tuple(seeds)
    tuned = GOOD.replace("  lr: 1e-3\n", "").replace("seeds: [0, 1]", "seeds: [777]")
    tuned += f"tune: {{axes: {{train.lr: [0.1, 0.2]}}, seeds: {spelling}}}\n"
    tuning = read_sweep(write(tmp_path, tuned)).tuning
    assert tuning is not None and tuning.seeds == tuple(seeds)


def test_seeds_as_needed_come_in_stages(tmp_path):
    """The first stage is planned, the last look has the largest number; `step` need not divide what is between."""
    sweep = read_sweep(write(tmp_path, GOOD), ["seeds={until: decided, from: 5, to: 12, step: 3}"])
    assert sweep.stages is not None and sweep.stages.sizes == (5, 8, 11, 12)
    assert sweep.seeds == tuple(range(5)) and sweep.every_seed == tuple(range(12))


@pytest.mark.parametrize(
    "spelling",
    [
        "from: 2, to: 9, step: 1",
        "from: 5, to: 5, step: 1",
        "from: 5, to: 9, step: 0",
        "from: 5, to: 9",
        "from: 3, to: 99, step: 1",
    ],
)
def test_seeds_as_needed_have_bounds(tmp_path, spelling):
    """Three seeds at least, more to come, few looks."""
    found = problems(tmp_path, GOOD.replace("seeds: [0, 1]", f"seeds: {{until: decided, {spelling}}}"))
    assert "{until: decided, from: N, to: M, step: K}" in str(found[0]) and found[0].place.endswith("sweep.yaml:11")


def test_seeds_as_needed_share_their_trials(tmp_path):
    """Trials of each seed would be needed anew; trials of all seeds keep out of every seed that may follow."""
    text = GOOD.replace("  lr: 1e-3\n", "").replace("seeds: [0, 1]", "seeds: {until: decided, from: 3, to: 150, step: 50}")
    tuned = text + "tune: {axes: {train.lr: [0.1, 0.2]}}\n"
    assert read_sweep(write(tmp_path, tuned)).tuning.seeds == (150, 151)  # type: ignore[union-attr]
    found = problems(tmp_path, tuned.replace("]}}", "]}, per: seed, seeds: [500]}"))
    assert "further seeds would need trials" in str(found[0])


@pytest.mark.parametrize("spelling", ["0", "-1", "true", "1.5", "many", "{from: -1, count: 2}", "{from: 0}", "1000000"])
def test_other_spellings_of_seeds_are_refused(tmp_path, spelling):
    """With the three valid ones, at the line."""
    found = problems(tmp_path, GOOD.replace("seeds: [0, 1]", f"seeds: {spelling}"))
    assert "{from: FIRST, count: N}" in str(found[0]) and found[0].place.endswith("sweep.yaml:11")


def test_a_value_given_twice_is_refused(tmp_path):
    """An axis whose option is also set in a section, or in two groups, is ambiguous."""
    twice = GOOD.replace("model: {depth: 2}", "model: {depth: 2, patch_size: 1}")
    assert "given at" in str(problems(tmp_path, twice)[0])
    zipped = GOOD + "zip:\n  - {model.patch_size: [1, 2], train.lr: [1, 2]}\n"
    assert len(problems(tmp_path, zipped)) == 2


def test_the_grid_is_a_product_less_exclusions(tmp_path):
    """Axes multiply, zipped axes go together, exclusions drop exactly the cells that match all of their keys."""
    text = GOOD.replace("  lr: 1e-3\n", "") + (
        "zip:\n  - {train.lr: [0.1, 0.2], train.weight_decay: [0.0, 0.5]}\nexclude:\n  - {backbone: vit, model.patch_size: 1}\n"
    )
    sweep = read_sweep(write(tmp_path, text))
    cells = [{key: setting.value for key, setting in cell.items()} for cell in sweep.cells()]
    assert len(cells) == (2 * 2 - 1) * 2
    assert {(cell["train.lr"], cell["train.weight_decay"]) for cell in cells} == {(0.1, 0.0), (0.2, 0.5)}
    assert all((cell["backbone"], cell["model.patch_size"]) != ("vit", 1) for cell in cells)


def test_zipped_axes_of_unequal_length_are_refused(tmp_path):
    """Zipping 2 levels with 3 has no meaning."""
    text = GOOD.replace("  lr: 1e-3\n", "") + "zip:\n  - {train.lr: [0.1, 0.2], train.weight_decay: [0.0, 0.5, 0.6]}\n"
    assert "same number of levels" in str(problems(tmp_path, text)[0])


def test_a_backbones_own_settings_override_the_files(tmp_path):
    """Defaults < sections < the backbone's own < axes."""
    text = GOOD + "backbones:\n  vit: {train: {epochs: 9}}\n"
    sweep = read_sweep(write(tmp_path, text))
    epochs = {cell["backbone"].value: sweep.settings(cell)["train.epochs"].value for cell in sweep.cells()}
    assert epochs == {"vit": 9, "convmixer": 3}


def test_a_shared_section_makes_no_two_options_alike() -> None:
    """`train.epoch` is near `train.epochs`; `train.learning_rate` is not near `train.evaluate`."""
    assert nearest("train.epoch", ["train.epochs", "train.evaluate"]) == "train.epochs"
    assert nearest("train.learning_rate", ["train.lr", "train.evaluate"]) is None


def test_an_option_without_its_section_is_recognized(tmp_path: Path) -> None:
    """`lr=1e-3` on the command line is answered with `train.lr`."""
    file = tmp_path / "a.yaml"
    file.write_text("question: q\nbackbone: vit\ndata: {name: digits}\nseeds: [0]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"did you mean 'train\.lr'"):
        read_sweep(file, ["lr=1e-3"])


def test_a_folder_in_place_of_a_file_is_answered_with_its_sweeps(tmp_path: Path) -> None:
    """Where a folder is named, the sweeps in it are the valid choices."""
    (tmp_path / "a.yaml").write_text("question: q\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"valid: .*a\.yaml"):
        read_sweep(tmp_path)


def test_a_misspelt_section_of_a_backbone_is_reported(tmp_path):
    """An unknown section is a mistake: the line and the valid sections are named."""
    found = problems(tmp_path, GOOD + "backbones:\n  vit:\n    trian: {epochs: 9}\n")
    assert "backbones.vit.trian" in found[0].key
    assert found[0].place.endswith("sweep.yaml:14")
    assert "train" in str(found[0])


def test_a_boolean_with_an_anchor_stays_a_boolean(tmp_path):
    """YAML's anchors name a value and don't change it."""
    sweep = read_sweep(write(tmp_path, GOOD + "augment: {flip: &on true}\nbackbones:\n  vit: {augment: {crop: &one 1}}\n"))
    assert sweep.base["augment.flip"].value is True
    assert sweep.overlays["vit"]["augment.crop"].value == 1


def test_exclusions_may_name_what_only_a_backbone_sets(tmp_path):
    """A backbone's own setting is set by the sweep, so a cell can be excluded by it."""
    own = "backbones:\n  vit: {train: {batch_size: 9}}\nexclude:\n  - {train.batch_size: 9}\n"
    sweep = read_sweep(write(tmp_path, GOOD + own))
    assert {cell["backbone"].value for cell in sweep.cells()} == {"convmixer"}


@pytest.mark.parametrize("stem", ["..", ".hidden", "50%augment", "a:b", "-rf", "a\nb", "a" * 101, "\x1b[31m"])
def test_a_files_name_makes_no_path(tmp_path, stem):
    """It is that of a folder of runs: what would be another folder, or split a path, is refused; `name` overrides it."""
    path = tmp_path / f"{stem}.yaml"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(UserError, match="a sweep's name"):
        read_sweep(path)
    assert read_sweep(path, ["name=other"]).name == "other"
    with pytest.raises(UserError, match="name"):
        read_sweep(path, ["name=../other"])


def test_names_may_be_of_any_language(tmp_path):
    """Spaces and letters of every alphabet are usual in files' names."""
    path = tmp_path / "étude 2, größer.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert read_sweep(path).name == "étude 2, größer"


BOMB = "a0: &a0 [x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
UNBOUNDED = {
    "aliases": (BOMB, "aliases repeat"),
    "itself": ("a: &x [*x]", "inside what it repeats"),
    "deeper in itself": ("a: &x {b: [*x]}", "inside what it repeats"),
    "brackets": ("a: " + "[" * 3000, "nested at most"),
    "braces": ("a: " + "{a: " * 3000, "nested at most"),
    "dashes": ("- " * 3000, "nested at most"),
    "values": (f"a: [{'1, ' * 30_000}]", "values"),
    "digits": ("a: " + "9" * 5000, "digits"),
    "sign": ("a: -" + "9" * 5000, "digits"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "digits"),
    "octal": ("a: 0o" + "7" * 5000, "digits"),
    "tag": ("a: !!int '" + "9" * 5000 + "'", "digits"),
    "date": ("a: 2026-13-45", "not valid YAML"),
    "bytes": ("#" * 200_001, "bytes"),
}


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_a_document_is_counted_before_it_is_expanded(tmp_path, kind):
    """What would fill the memory or end in a traceback is one problem with its file, whatever else is wrong."""
    text, rule = UNBOUNDED[kind]
    (problem,) = problems(tmp_path, text)
    assert rule in problem.rule and "sweep.yaml" in str(problem)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dead link"])
def test_a_sweep_is_a_file(tmp_path, kind):
    """What is no file, or endless, is refused at once."""
    path = tmp_path / "sweep.yaml"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    with pytest.raises(UserError, match="cannot read this sweep"):
        read_sweep(path)


def test_aliases_and_merge_keys_of_usual_size_are_read(tmp_path):
    """Anchors may be given anew, and a mapping merged into others."""
    overlays = "backbones: {vit: {model: {<<: *m}}, convmixer: {model: *m}}\nexpected: &m none"
    text = GOOD.replace("model: {depth: 2}", f"model: &m {{depth: 2}}\n{overlays}")
    assert read_sweep(write(tmp_path, text)).overlays["vit"]["model.depth"].value == 2


MANY = [n / 1e4 for n in range(1, 401)]
TOO_MANY = {
    "axes": GOOD.replace("[1, 2]", f"[1]\n  train.weight_decay: {MANY}\n  train.eps: {MANY}"),
    "seeds": GOOD.replace("seeds: [0, 1]", "seeds: 100000"),
    "zip": GOOD.replace("seeds: [0, 1]", f"seeds: 2\nzip:\n  - {{train.weight_decay: {MANY}}}\n  - {{train.eps: {MANY}}}"),
    "trials": GOOD.replace("seeds: [0, 1]", "seeds: 2\ntune:\n  seeds: 50000\n  axes: {train.weight_decay: [0.1, 0.2]}"),
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_a_grid_is_counted_before_it_is_expanded(tmp_path, kind):
    """More runs than any cluster trains are a typing error: the count of levels is shown, and nothing is planned."""
    assert any(
        problem.key == "axes" and "at most 200,000 runs" in problem.rule for problem in problems(tmp_path, TOO_MANY[kind])
    )


@pytest.mark.parametrize("target", ["1e15", "1000000G", "0", "-5", str(10**15)])
def test_a_budget_has_bounds(tmp_path, target):
    """A target that no network could meet is refused before one is built."""
    sweep = read_sweep(write(tmp_path, GOOD.replace("30k", target)))
    with pytest.raises(UserError, match="target"):
        make_plan(sweep)
