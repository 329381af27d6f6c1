"""The traced cost of a model: parameters counted in its modules, MACs counted by fvcore in a traced forward pass.

The convention is that of `study.backbones.closed_form`. fvcore traces the model and asks a handler per operator for its
count. Its own handlers charge nothing for fused attention and for convolutions with `padding="same"`, round einsum, charge
norms and pooling, and unknown operators only cause a warning. So none of them is used: an operator is counted by `HANDLERS`,
or is in `FREE` because it multiplies and sums nothing, or is an error that names it. (Sums of elementwise products can't be
recognized in a trace.)
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from study import backbones
from study.backbones.base import WholeBackbone
from study.backbones.closed_form import MODEL_PARTS, Cost, PartCost, fft_macs
from study.backbones.specification import BackboneSpec
from study.errors import Problem, UserError
from study.planning.plugin_check import check_plugin_models, find_model_parts

Value = Any  # torch._C.Value, which has no stubs
Handler = Callable[[Sequence[Value], Sequence[Value]], Counter[str]]

ELEMENTWISE = """
    add add_ sub sub_ rsub div div_ neg abs exp log sqrt rsqrt pow square erf sin cos tanh sigmoid relu relu_
    gelu silu silu_ glu elu mish prelu hardswish hardswish_ hardsigmoid hardsigmoid_ hardtanh hardtanh_
    leaky_relu softmax log_softmax where maximum minimum amax amin eq ne lt gt le ge
"""
NORMS_AND_POOLING = """
    batch_norm layer_norm rms_norm group_norm instance_norm avg_pool2d adaptive_avg_pool2d max_pool2d mean sum var
    dropout dropout_ feature_dropout
"""
RESHAPING = """
    alias clone contiguous detach to type_as expand expand_as flatten unflatten view view_as reshape reshape_as permute
    transpose transpose_ t numpy_T movedim squeeze unsqueeze select slice narrow index gather cat stack split
    split_with_sizes chunk unbind repeat repeat_interleave roll flip pad constant_pad_nd pixel_shuffle pixel_unshuffle
    size numel arange empty zeros ones full zeros_like ones_like empty_like full_like new_zeros new_ones new_full
    new_empty copy_ fill_ Int Float Bool ScalarImplicit floor floor_divide item lift_fresh __getitem__
    im2col real view_as_complex view_as_real
"""
FREE = frozenset(f"aten::{name}" for name in (ELEMENTWISE + NORMS_AND_POOLING + RESHAPING).split())


def count_cost(model: nn.Module, *, image_size: int, in_channels: int) -> Cost:
    """The exact cost of one forward pass of one square image; equal to a backbone's `closed_form()`.

    The model is traced in evaluation mode on zeros, on its own device; its mode and weights are unchanged. Any
    module that takes images b c h w can be counted; one without `parameter_part` has the single part "whole".
    Raises UserError naming the operators that are neither counted nor free.
    """
    traced = _traced_counts(model, image_size, in_channels)
    part_of = getattr(model, "parameter_part", None)
    if part_of is None or isinstance(model, WholeBackbone):
        return Cost({"whole": _part(list(model.parameters()), traced[""])})
    parameters: dict[str, list[nn.Parameter]] = {part: [] for part in MODEL_PARTS}
    for name, parameter in model.named_parameters():
        parameters[part_of(name)].append(parameter)
    operators = {part: sum((traced[root] for root in _roots(model, part)), Counter[str]()) for part in MODEL_PARTS}
    cost = Cost({part: _part(parameters[part], operators[part]) for part in MODEL_PARTS})
    assert cost.macs == traced[""]["macs"], "an operator with MACs runs outside the four parts"
    return cost


def verify_costs(specs: Iterable[BackboneSpec]) -> int:
    """Trace every architecture, each once; the number traced is returned.

    Depth only repeats blocks, so an architecture is traced with few and represents all of its depths. Raises
    AssertionError naming the specification whose closed form is not what fvcore counts, and UserError for mistakes in plug-ins.
    """
    shallow = {spec.at_depth_of_trace() for spec in set(specs)}
    check_plugin_models(shallow)
    shallow = {spec for spec in shallow if spec.closed_form() is not None}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, threads for one image mostly wait (25 s, not 5, for 200 models)
    try:
        for spec in shallow:
            traced = _trace(spec)
            if traced != spec.closed_form():  # no assert, which `python -O` would leave out
                fault = f"the closed form of {spec.backbone} is wrong for {spec!r}: {traced}"
                if parts := find_model_parts(spec):
                    raise UserError(*(Problem(fault, part.place) for part in parts))
                raise AssertionError(fault)
    finally:
        torch.set_num_threads(threads)
    return len(shallow)


@cache
def find_cost(spec: BackboneSpec) -> Cost:
    """The cost of a model by its closed form, or by a trace where it has none."""
    return spec.closed_form() or _trace(spec)


def _trace(spec: BackboneSpec) -> Cost:
    with torch.random.fork_rng(devices=[]):
        model = backbones.BACKBONES[spec.backbone].construct(spec)
    return count_cost(model, image_size=spec.image_size, in_channels=spec.in_channels)


def _part(parameters: Sequence[nn.Parameter], counts: Counter[str]) -> PartCost:
    return PartCost(
        params=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        frozen_params=sum(parameter.numel() for parameter in parameters if not parameter.requires_grad),
        macs=counts["macs"],
        activation_elements=counts["activation_elements"],
        padding_macs=counts["padding_macs"],
    )


def _roots(model: nn.Module, part: str) -> list[str]:
    """Names of the outermost modules that make up a part."""
    paths = [name.split(".") for name, _ in model.named_modules()]
    return [".".join(path) for path in paths if path[-1] == part and not set(path[:-1]) & set(MODEL_PARTS)]


def _traced_counts(model: nn.Module, image_size: int, in_channels: int) -> Mapping[str, Counter[str]]:
    """The handlers' counts by module name; a module includes its children."""
    like = next(model.parameters(), torch.zeros(()))
    image = torch.zeros(1, in_channels, image_size, image_size, device=like.device, dtype=like.dtype)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention as one operator, without the products to be counted
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # fvcore's import and torch's tracer announce that torch.jit is deprecated
            from fvcore.nn import FlopCountAnalysis  # imported here because importing it warns

            analysis = FlopCountAnalysis(model, image).clear_op_handles().set_op_handle(**HANDLERS)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            counts: Mapping[str, Counter[str]] = analysis.by_module_and_operator()
            unknown = sorted(set(analysis.unsupported_ops()) - FREE)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, training in modes:
            module.training = training
    if unknown:
        rule = "this operator has no count of MACs; add it to HANDLERS or FREE in study/planning/traced_cost.py"
        raise UserError(*(Problem(rule, value=operator) for operator in unknown))
    return counts


def _count(macs: int, activation_elements: int, padding_macs: int = 0) -> Counter[str]:
    return Counter(macs=macs, activation_elements=activation_elements, padding_macs=padding_macs)


def _shape(value: Value) -> tuple[int, ...]:
    assert value.isCompleteTensor(), "the trace lost a shape"
    return tuple(value.type().sizes())


def _integers(value: Value) -> list[int]:
    """A list of integers in a traced graph, written as a constant or built from constants."""
    if value.node().kind() == "prim::ListConstruct":
        return [int(item.toIValue()) for item in value.node().inputs()]
    return [int(item) for item in value.toIValue()]


def _product(first: int) -> Handler:
    """Matrix products of the operands at `first` and `first + 1`: each output sums over the first one's last axis."""

    def handler(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
        written = math.prod(_shape(outputs[0]))
        return _count(written * _shape(inputs[first])[-1], written)

    return handler


def _addbmm(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """Matrix products that are also summed over the batch."""
    _, left, right = map(_shape, inputs[:3])
    return _count(math.prod(left) * right[-1], math.prod(_shape(outputs[0])))


def _einsum(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """One or two operands: as many MACs as there are combinations of all indices (none where there is one operand)."""
    equation = inputs[0].toIValue().replace(" ", "")
    operands = [_shape(value) for value in inputs[1].node().inputs()]
    terms = equation.split("->")[0].split(",")
    if len(operands) > 2 or "..." in equation:
        raise UserError(Problem("einsum is counted for one or two operands without '...'", value=equation))
    sizes = {index: size for term, shape in zip(terms, operands, strict=True) for index, size in zip(term, shape, strict=True)}
    macs = math.prod(sizes.values()) if len(operands) == 2 else 0
    return _count(macs, math.prod(_shape(outputs[0])) if macs else 0)


def _attention(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """Fused attention, charged as the two products it fuses: b h n d queries, b h m d keys, b h m e values."""
    queries, keys, values = map(_shape, inputs[:3])
    scores = math.prod(queries[:-1]) * keys[-2]
    return _count(scores * (queries[-1] + values[-1]), scores + math.prod(_shape(outputs[0])))


def _convolution(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """aten::_convolution: input, weight, bias, stride, padding, dilation, transposed, output padding, groups, ..."""
    if inputs[6].toIValue():  # transposed: every input pixel is spread by the whole kernel
        image, weight = _shape(inputs[0]), _shape(inputs[1])
        return _count(math.prod(image) * math.prod(weight[1:]), math.prod(_shape(outputs[0])))
    return _count_convolution(inputs, outputs, _integers(inputs[4]), groups=inputs[8].toIValue())


def _convolution_mode(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """aten::_convolution_mode: input, weight, bias, stride, "same" or "valid", dilation, groups."""
    dilation, mode = _integers(inputs[5]), inputs[4].toIValue()
    kernel = _shape(inputs[1])[2:]
    same = [step * (size - 1) // 2 for step, size in zip(dilation, kernel, strict=True)]
    before = same if mode == "same" else [0] * len(kernel)
    return _count_convolution(inputs, outputs, before, groups=inputs[6].toIValue())


def _count_convolution(
    inputs: Sequence[Value], outputs: Sequence[Value], padding_before: list[int], *, groups: int
) -> Counter[str]:
    """Every output element sums over one filter; for a depthwise one, the taps in the padding are counted too."""
    image, weight, output = _shape(inputs[0]), _shape(inputs[1]), _shape(outputs[0])
    stride, dilation = _integers(inputs[3]), _integers(inputs[5])
    macs = math.prod(output) * math.prod(weight[1:])
    if groups == 1 or not groups == image[1] == output[1]:  # not depthwise
        return _count(macs, math.prod(output))
    inside = 1
    for axis in range(len(stride)):
        starts = [position * stride[axis] - padding_before[axis] for position in range(output[2 + axis])]
        taps = [tap * dilation[axis] for tap in range(weight[2 + axis])]
        inside *= sum(0 <= start + tap < image[2 + axis] for start in starts for tap in taps)
    return _count(macs, math.prod(output), macs - output[0] * output[1] * inside)


def _multiplication(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """Elementwise products are free, but each of two complex numbers is a sum of four real products."""
    if not is_complex(outputs[0]):
        return _count(0, 0)
    elements = math.prod(_shape(outputs[0]))
    return _count(4 * elements, 2 * elements)


def _fourier(inputs: Sequence[Value], outputs: Sequence[Value]) -> Counter[str]:
    """A two-dimensional transform from or to real numbers: input, sizes, dimensions (default: the last two), norm."""
    assert not (is_complex(inputs[0]) and is_complex(outputs[0])), "only transforms between real and complex are counted"
    real = _shape(inputs[0]) if is_complex(outputs[0]) else _shape(outputs[0])
    dimensions = (-2, -1) if inputs[2].type().kind() == "NoneType" else _integers(inputs[2])
    points = math.prod(real[dimension] for dimension in dimensions)
    written = math.prod(_shape(outputs[0])) * (2 if is_complex(outputs[0]) else 1)
    return _count(math.prod(real) // points * fft_macs(points), written)


def is_complex(value: Value) -> bool:
    return value.isCompleteTensor() and "Complex" in value.type().scalarType()


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(["aten::mul", "aten::mul_"], _multiplication),
    **dict.fromkeys([f"aten::fft_{name}" for name in ("fft2", "rfft2", "irfft2")], _fourier),
    **dict.fromkeys([f"aten::{name}" for name in ("linear", "matmul", "mm", "bmm", "mv", "dot")], _product(0)),
    **dict.fromkeys([f"aten::{name}" for name in ("addmm", "addmv", "baddbmm")], _product(1)),
    "aten::addbmm": _addbmm,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    "aten::_convolution": _convolution,
    "aten::_convolution_mode": _convolution_mode,
}
