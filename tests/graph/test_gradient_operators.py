"""Which operators have gradients: the list that exporters need, and onnx's own node tests, checked by differences."""

from __future__ import annotations

import pytest

from benchmarks.operators import CHECKED, FLAT, NOT_REAL, NOT_RUN, REFUSED, WRONG, by_operator, survey
from onnx_inspect.graph.rules._rule import find

EMITTED = """
Conv ConvTranspose Gemm MatMul Einsum BatchNormalization LayerNormalization InstanceNormalization GroupNormalization
RMSNormalization LRN MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool ReduceMean ReduceSum
ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceLogSumExp ReduceProd ReduceSumSquare Relu LeakyRelu PRelu Elu Selu Celu Gelu
Sigmoid HardSigmoid HardSwish Mish Softplus Softsign Tanh Erf Exp Log Sqrt Pow Abs Reciprocal Neg Clip Min Max Add Sub
Mul Div Sum Mean Where Softmax LogSoftmax Concat Split Slice Gather GatherElements GatherND ScatterND ScatterElements
Pad Transpose Reshape Flatten Squeeze Unsqueeze Expand Tile DepthToSpace SpaceToDepth Resize Cast Identity Dropout
Attention LSTM GRU RNN QuantizeLinear DequantizeLinear
""".split()

# Operators of onnx's tests that have a derivative and no rule, or only for some of their attributes.
WITHOUT = {
    *("AffineGrid", "Col2Im", "CumProd", "DFT", "DeformConv", "Det", "GridSample", "LinearAttention", "Loop"),
    *("MelWeightMatrix", "OneHot", "Range", "STFT", "Scan", "TensorScatter", "Unique"),
    *("ai.onnx.ml.ArrayFeatureExtractor", "ai.onnx.ml.Binarizer", "ai.onnx.ml.TreeEnsemble"),
}
PARTLY = {
    "BatchNormalization": "in training",
    "CenterCropPad": "with axes: nothing tells how many its function keeps",
    "Dropout": "in training",
    "Einsum": "along a diagonal",
    "Resize": "to a region of interest, or keeping the aspect ratio",
    "ScatterElements": "by products and extremes",
    "ScatterND": "by products and extremes",
}
# Where differences are no oracle: equal or whole numbers at which maxima and remainders jump, float32 logits of 10000.
JUMPING = {
    *("test_maxpool_2d_precomputed_pads", "test_maxpool_with_argmax_2d_precomputed_pads"),
    *("test_maxpool_2d_precomputed_same_upper", "test_mod_mixed_sign_float16", "test_mod_float16_mixed_sign_fmod_0"),
    *(f"test_{kind}_large_number{form}" for kind in ("softmax", "logsoftmax") for form in ("", "_expanded")),
    *(f"test_{kind}_large_number_expanded_ver18" for kind in ("softmax", "logsoftmax")),
}


@pytest.mark.parametrize("kind", EMITTED)
def test_what_exporters_emit_has_a_rule(kind: str) -> None:
    assert find("", kind) is not None


@pytest.mark.slow
def test_onnxs_own_node_tests_agree_with_differences() -> None:
    cases = list(survey())
    wrong = {case.name for case in cases if case.outcome == WRONG}
    assert wrong <= JUMPING, wrong - JUMPING
    table = by_operator(cases)
    refused = {name for name, outcomes in table.items() if outcomes[REFUSED] and name != "several"}
    assert refused <= WITHOUT | PARTLY.keys(), refused - WITHOUT - PARTLY.keys()
    checked = {name for name, outcomes in table.items() if outcomes[CHECKED]}
    assert len(checked) >= 110 and not checked & WITHOUT
    flat = {name for name, outcomes in table.items() if outcomes[FLAT]}
    assert flat <= {"Ceil", "DynamicQuantizeLinear", "Floor", "Hardmax", "Round", "Sign"}
    assert sum(case.outcome == CHECKED for case in cases) >= 900
    assert all(case.outcome in (CHECKED, FLAT, REFUSED, WRONG, NOT_RUN, NOT_REAL) for case in cases)
