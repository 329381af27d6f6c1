"""Everything that is measured of one network, and between networks, as the measures of their files."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from study.config.run import Run
from study.probing.attention_distance import measure_attention
from study.probing.kept_network import KeptNetwork, Measured
from study.probing.learned_filters import read_kernels
from study.probing.receptive_field import find_radii, measure_receptive_fields
from study.probing.similarity import compute_cka, match_depths
from study.records.probe_file import Measure, Similarity

SIMILAR_SEEDS = 3  # of each cell are compared with other runs: more pairs would say the same
MAX_COMPARED = 64


def list_measures(network: KeptNetwork, inputs: Tensor, grams: Tensor) -> list[Measure]:
    """All measures of the network with its `inputs` `n c h w`; `grams` as from `describe_layers`.

    A measure that does not exist (the field of a layer that ignores the image) is left out.
    """
    fields = measure_receptive_fields(network.model, inputs)
    found = [
        *_list_radii(network, fields),
        *_list_attention(network, inputs),
        *_list_kernels(network),
        *_list_similarity(grams),
    ]
    return [measure for measure in found if math.isfinite(measure.value)]


def _list_radii(network: KeptNetwork, fields: Measured) -> Iterator[Measure]:
    for layer, field in enumerate(fields):
        for share, radius in find_radii(field, network.run.model).items():
            yield Measure("field_radius", radius, layer=layer, at=share)


def _list_attention(network: KeptNetwork, inputs: Tensor) -> Iterator[Measure]:
    for own in measure_attention(network.model, inputs):
        for name, values in (("attention_distance", own.distance), ("attention_entropy", own.entropy)):
            for head, value in enumerate(values):
                yield Measure(name, float(value), layer=own.layer, head=head)


def _list_kernels(network: KeptNetwork) -> Iterator[Measure]:
    for own in read_kernels(network.model):
        yield Measure("kernel_distance", network.run.model.patch_size * own.mean_distance(), layer=own.layer)
        for radius, share in own.energy_within().items():
            yield Measure("kernel_energy", share, layer=own.layer, at=radius)


def _list_similarity(grams: Tensor) -> Iterator[Measure]:
    for layer, row in enumerate(compute_cka(grams, grams)):
        for other, value in enumerate(row[:layer]):
            yield Measure("cka", float(value), layer=layer, at=other)


def choose_compared(runs: Sequence[Run]) -> list[Run]:
    """The runs whose layers are compared with each other's: the first seeds of each cell, as far as there is room."""
    cells = defaultdict(list)
    for run in runs:
        cells[run.digest(without=("seed",))].append(run)
    chosen = [run for own in cells.values() for run in sorted(own, key=lambda run: run.seed)[:SIMILAR_SEEDS]]
    return chosen[:MAX_COMPARED]


def compare_runs(runs: Sequence[Run], described: Mapping[str, Tensor]) -> Iterator[Similarity]:
    """CKA at the same fraction of the depth, of every two runs with different seeds and the same test images.

    `described` has what `describe_layers` gave for each run. Equal seeds share the data order and the patch embedding, so they
    would be more alike than networks that were trained independently.
    """
    for one, other in itertools.combinations(runs, 2):
        same_images = (one.data.digest, one.data.image_size) == (other.data.digest, other.data.image_size)
        if one.seed == other.seed or not same_images or one.data.test_images != other.data.test_images:
            continue
        found = compute_cka(described[one.run_id], described[other.run_id])
        for layer, their in match_depths(one.model.depth, other.model.depth):
            if math.isfinite(found[layer, their]):
                yield Similarity(one.run_id, other.run_id, layer, float(found[layer, their]))
