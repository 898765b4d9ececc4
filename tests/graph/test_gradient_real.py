"""Models that other people trained: gradients down to the input, against differences; what has none is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect.engine import Engine
from onnx_inspect.errors import LayerError, TargetError
from onnx_inspect.graph.classifier import find
from onnx_inspect.graph.gradient import gradient, gradient_name, notes
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import read
from onnx_inspect.graph.surgery import expose

REAL = Path(__file__).parents[3] / "shared" / "real"
INDEX: dict[str, Any] = json.loads((REAL / "index.json").read_text()) if (REAL / "index.json").is_file() else {}
MODELS = {model["id"]: model for model in INDEX.get("models", [])}
# Why a model's first tensor of real numbers has no gradient of the output.
WITHOUT = {
    "gtsrb_bnn_48_nhwc": "'sequential_1/quant_dense_2/ste_sign_15/Sign_1' (Sign), which is flat",
    "silero_vad_16k_op15": "(If) can't be differentiated",
}
# Steps of float32 images along random directions: kinks that are crossed average out, to within a few hundredths.
DIFFERENCES = 0.05
# Differences are no oracle there: half precision, steps of eight bits, a sigmoid as steep as a step.
ROUGH = ("ppocr_v3_det", "squeezenet1_fp16", "minilm_l1_op23_fp16", "minilm_l6_cutvocab_int8")
SLOW = ("style_candy",)  # 720 x 720 pixels

pytestmark = pytest.mark.skipif(not MODELS, reason=f"{REAL} is not here")


def first_real(model: Model) -> str:
    """The input, or the embedding of what it numbers."""
    spec = model.inputs[0]
    if spec.dtype in ("float32", "float16", "uint8", "int8"):
        return spec.name
    return next(la.output.name for la in model.layers if la.output.is_float)


def fed(model: Model, entry: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """One smooth made-up picture in the model's own range, or random numbers."""
    rng, feeds = np.random.default_rng(0), {}
    for spec in model.inputs:
        shape = [1 if i == 0 else d if isinstance(d, int) else 32 for i, d in enumerate(spec.shape or ())]
        if not spec.dtype.startswith(("float", "uint8", "int8")):
            feeds[spec.name] = rng.integers(1, 2, shape).astype(spec.dtype)
            continue
        values = rng.normal(0, 1, shape)
        way = entry.get("preprocess")
        if way and len(shape) == 4:
            axes = (2, 3) if way["layout"] == "NCHW" else (1, 2)
            pixels = 128 + 60 * np.clip(sum(np.roll(values, k, axes) for k in range(4)) / 2, -2, 2)
            view = (1, -1, 1, 1) if way["layout"] == "NCHW" else (1, 1, 1, -1)
            mean, deviation = (np.reshape(way[k], view) for k in ("mean", "std"))
            values = (pixels * way["scale"] - mean) / deviation
        info = np.iinfo(spec.dtype) if spec.dtype in ("uint8", "int8") else None
        feeds[spec.name] = (values if info is None else np.clip(values, info.min, info.max)).astype(spec.dtype)
    return feeds


def target_of(model: Model) -> str:
    """Class scores before a last softmax and before they are rounded to steps, else the first output of numbers."""
    try:
        return find(model).scores
    except TargetError:
        output = next((o.name for o in model.outputs if o.is_float), model.outputs[0].name)
        node = model.producers[output]
        return node.input[0] if node.op_type == "ArgMax" else output


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in MODELS if n not in WITHOUT],
)
def test_a_models_first_tensor_has_a_gradient(name: str) -> None:
    model = read(REAL / MODELS[name]["file"])
    source, target = first_real(model), target_of(model)
    feeds = fed(model, MODELS[name])
    value = Engine(expose(model, [target])).run(feeds)[target]
    seed = np.zeros(value.shape, np.float32)
    seed.flat[int(np.argmax(value))] = 1
    built = gradient(model, [source], target)
    made = Engine(built).run(feeds | {"seed": seed})[gradient_name(source)]
    assert made.dtype == np.float32 and np.isfinite(made).all()
    assert np.abs(made).max() > 0
    quantised = any(n.op_type in ("QLinearConv", "QuantizeLinear", "QLinearMatMul") for n in model.proto.graph.node)
    assert bool(notes(built)) == (quantised or name == "minilm_l6_cutvocab_int8")
    if not quantised and name not in ROUGH and source in feeds:
        differ(model, feeds, source, target, seed, made)


def differ(model: Model, feeds: Any, source: str, target: str, seed: Any, made: NDArray[Any]) -> None:
    """Central differences along the gradient itself, whose slope is its squared norm."""
    engine, x = Engine(expose(model, [target])), feeds[source].astype(np.float64)
    direction = made.astype(np.float64) / np.linalg.norm(made.astype(np.float64))
    errors = []
    for step in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0):
        up, down = ((x + sign * step * direction).astype(np.float32) for sign in (1, -1))
        change = up.astype(np.float64) - down.astype(np.float64)
        scores = [
            float((engine.run({**feeds, source: v}, [target])[target].astype(np.float64) * seed).sum())
            for v in (up, down)
        ]
        expected = float((made * change).sum())
        errors.append(abs(scores[0] - scores[1] - expected) / abs(expected))
    assert min(errors) <= DIFFERENCES, errors


@pytest.mark.parametrize("name", [n for n in MODELS if n in WITHOUT])
def test_what_has_no_gradient_says_why(name: str) -> None:
    model = read(REAL / MODELS[name]["file"])
    with pytest.raises(LayerError) as caught:
        gradient(model, [first_real(model)], target_of(model))
    assert WITHOUT[name] in str(caught.value)


@pytest.mark.parametrize("name", ["mobilenet_v1_025_128_uint8", "resnet8_keras_int8", "visual_wake_words_int8"])
def test_quantised_maps_have_gradients_like_their_float_twins(name: str) -> None:
    twins = {"mobilenet_v1_025_128_uint8": "mobilenet_v1_025_128_fp32"}
    twin = twins.get(name, name.replace("int8", "fp32"))
    found = []
    for other in (name, twin):
        model = read(REAL / MODELS[other]["file"])
        feeds, source = fed(model, MODELS[other]), first_real(model)
        goal = target_of(model)
        value = Engine(expose(model, [goal])).run(feeds)[goal]
        seed = np.zeros(value.shape, np.float32)
        seed.reshape(-1)[1] = 1
        found.append(Engine(gradient(model, [source], goal)).run(feeds | {"seed": seed})[gradient_name(source)].ravel())
    cosine = float(found[0] @ found[1] / np.linalg.norm(found[0]) / np.linalg.norm(found[1]))
    assert cosine > 0.4, cosine  # eight bits move some ReLUs; unrelated gradients have a cosine of about 0
