"""What every method must hold to, whichever it is: a new file in `cam` is covered without being told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect import discover
from onnx_inspect.cam._budget import Budget, Meter
from onnx_inspect.cam._probe import Index, Probe, Rows, Score, is_flat, parse_params, weighted_sum
from onnx_inspect.errors import MethodError

METHODS = discover.names("onnx_inspect.cam")
MODULES = {name: discover.load("onnx_inspect.cam", name) for name in METHODS}
ON_LAYERS = [name for name, module in MODULES.items() if getattr(module, "USES_LAYER", True)]
BLACK_BOX = [name for name in METHODS if name not in ON_LAYERS]
CLASSES, CHANNELS, GRID, FINER, SIZE = 4, 6, (3, 5), (5, 11), (9, 20)


def fake(count: int = 2, seed: int = 0, block: int = 7, activations: NDArray[np.float32] | None = None) -> Probe:
    """A linear network in numpy: conv-like activations, mean pooling, one linear layer without bias."""
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(0.1, 1, (count, 3, *SIZE)).astype(np.float32)
    mix = rng.normal(size=(CHANNELS, 3)).astype(np.float32)
    head = rng.normal(size=(CLASSES, CHANNELS)).astype(np.float32)
    drawn = (rng.uniform(0, 1, (count, CHANNELS, *GRID)) ** 4).astype(np.float32)  # some positions strong
    maps = drawn if activations is None else activations
    finer = (rng.uniform(0, 1, (count, 4, *FINER)) ** 4).astype(np.float32)
    if activations is not None:  # as constant as those given
        finer = np.broadcast_to(activations[:, :4].mean(axis=(2, 3), keepdims=True), finer.shape).copy()
    classes = np.arange(count) % CLASSES

    def in_blocks(rows: Rows, of: Index, score: NDArray[np.float32]) -> NDArray[np.float64]:
        parts = []
        for start in range(0, len(of), block):
            variants = rows(np.arange(start, min(start + block, len(of))))
            parts.append(variants.mean(axis=(2, 3), dtype=np.float64) @ score.T)
        return np.concatenate(parts)

    return Probe(
        inputs=inputs,
        activations=maps,
        classes=classes,
        base=maps.mean(axis=(2, 3), dtype=np.float64) @ head.T,
        score_inputs=lambda rows, of: in_blocks(rows, of, head @ mix),
        score_activations=lambda rows, of: in_blocks(rows, of, head),
        logits=True,
        weights=lambda tolerance: head[classes],
        layer_gradients=lambda: np.broadcast_to(head[classes][:, :, None, None] / np.prod(GRID), maps.shape),
        input_gradients=lambda rows, of: slopes(rows, of, (head @ mix)[classes]),
        finer=lambda: (finer,),
        every_class=True,
        readings={"detection": 1},
        layer_curvature=lambda: 0.01 * maps,
        guided_gradients=lambda rows, of: np.abs(slopes(rows, of, (head @ mix)[classes])),
        bias_shares=lambda index: [],
        rng=np.random.default_rng(seed),
    )


def slopes(rows: Rows, of: Index, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gradients of a score that varies over the input, unlike the linear one: half of each pixel's square."""
    return rows(np.arange(len(of))) * weights[of][:, :, None, None]


def run(method: str, probe: Probe) -> NDArray[np.float32]:
    values: NDArray[np.float32] = MODULES[method].attribute(probe, MODULES[method].Params())
    return values


def limited(probe: Probe, passes: int) -> Probe:
    """The probe under a budget that a stable map doesn't end."""
    return replace(probe, meter=Meter(Budget(passes=passes), stable=2.0))


def level(values: NDArray[np.float32]) -> bool:
    """Flat, but for the rounding of sums in float32."""
    return is_flat(values) or bool(np.ptp(values) <= 1e-5 * np.abs(values).max())


@pytest.mark.parametrize("method", METHODS)
def test_maps_have_the_declared_resolution_and_are_finite(method: str) -> None:
    values = run(method, fake(3))
    assert values.shape == (
        3,
        *{"layer": GRID, "finest": FINER, "input": SIZE}[getattr(MODULES[method], "RESOLUTION", "layer")],
    )
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert not is_flat(values[0])


@pytest.mark.parametrize("method", METHODS)
def test_block_size_changes_nothing(method: str) -> None:
    np.testing.assert_allclose(run(method, fake(block=1)), run(method, fake(block=100)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_changed_in_place(method: str) -> None:
    probe = fake()
    before = probe.inputs.copy(), probe.activations.copy()
    probe.inputs.flags.writeable = probe.activations.flags.writeable = False
    run(method, probe)
    np.testing.assert_array_equal(probe.inputs, before[0])
    np.testing.assert_array_equal(probe.activations, before[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_map(method: str) -> None:
    np.testing.assert_array_equal(run(method, fake()), run(method, fake()))


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_channels_does_not_matter(method: str) -> None:
    probe, order = fake(), np.random.default_rng(1).permutation(CHANNELS)
    inverse = np.argsort(order)
    shuffled = replace(
        probe,
        activations=np.ascontiguousarray(probe.activations[:, order]),
        weights=lambda tolerance: probe.weights(tolerance)[:, order],
        score_activations=lambda rows, of: probe.score_activations(lambda p: rows(p)[:, inverse], of),
        layer_gradients=lambda: probe.layer_gradients()[:, order],
        layer_curvature=lambda: probe.layer_curvature()[:, order],
    )
    np.testing.assert_allclose(run(method, shuffled), run(method, fake()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("budget", [None, 12])
@pytest.mark.parametrize("method", [name for name in METHODS if not getattr(MODULES[name], "SHARED", False)])
def test_inputs_do_not_see_each_other(method: str, budget: int | None) -> None:
    both = run(method, fake(2) if budget is None else limited(fake(2), budget))
    swapped_probe = fake(2)
    first = replace(
        swapped_probe if budget is None else limited(swapped_probe, budget),
        inputs=swapped_probe.inputs[:1],
        activations=swapped_probe.activations[:1],
        classes=swapped_probe.classes[:1],
        base=swapped_probe.base[:1],
        weights=lambda tolerance: swapped_probe.weights(tolerance)[:1],
        layer_gradients=lambda: swapped_probe.layer_gradients()[:1],
        layer_curvature=lambda: swapped_probe.layer_curvature()[:1],
        finer=lambda: tuple(maps[:1] for maps in swapped_probe.finer()),
    )
    np.testing.assert_allclose(run(method, first)[0], both[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_for_everything_gives_the_definition(method: str) -> None:
    """Where nothing counts as stable, all masks are run; so are they without a budget."""
    full, probe = run(method, fake()), limited(fake(), 10**6)
    np.testing.assert_allclose(run(method, probe), full, rtol=1e-5, atol=1e-7)
    found = probe.meter.estimate() if probe.meter is not None else None
    assert found is None or all(found.complete)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_kept_and_what_was_spent_is_said(method: str) -> None:
    counted = [0]
    probe = limited(fake(), 12)

    def counting(score: Score) -> Score:
        def scored(rows: Rows, of: Index) -> NDArray[np.float64]:
            counted[0] += len(of)
            return score(rows, of)

        return scored

    probe = replace(
        probe, score_inputs=counting(probe.score_inputs), score_activations=counting(probe.score_activations)
    )
    values = run(method, probe)
    assert np.isfinite(values).all()
    found = probe.meter.estimate() if probe.meter is not None else None
    if found is not None:
        assert sum(found.passes) == counted[0]
        assert max(found.passes) <= 12


@pytest.mark.parametrize("method", METHODS)
def test_an_estimate_does_not_depend_on_the_block_size_or_the_run(method: str) -> None:
    first = run(method, limited(fake(block=1), 12))
    np.testing.assert_allclose(first, run(method, limited(fake(block=100), 12)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(first, run(method, limited(fake(block=1), 12)))


@pytest.mark.parametrize("method", ON_LAYERS)
def test_constant_activations_give_a_flat_map(method: str) -> None:
    constant = np.broadcast_to(
        np.linspace(0.1, 1, CHANNELS, dtype=np.float32)[None, :, None, None], (2, CHANNELS, *GRID)
    )
    assert all(level(m) for m in run(method, fake(activations=np.ascontiguousarray(constant))))


@pytest.mark.parametrize("method", ON_LAYERS)
def test_dead_activations_give_a_flat_map(method: str) -> None:
    assert all(is_flat(m) for m in run(method, fake(activations=np.zeros((2, CHANNELS, *GRID), np.float32))))


@pytest.mark.parametrize("method", BLACK_BOX)
def test_a_black_box_method_looks_at_no_layer(method: str) -> None:
    probe = fake()

    def refuse(rows: Rows, of: Index) -> NDArray[np.float64]:
        raise AssertionError("the tail was run")

    blind = replace(probe, activations=np.full_like(probe.activations, np.nan), score_activations=refuse)
    np.testing.assert_array_equal(run(method, blind), run(method, fake()))


@pytest.mark.parametrize("method", BLACK_BOX)
def test_an_input_that_masks_cannot_change_gives_a_flat_map(method: str) -> None:
    """The input is its own fill, 0: hiding any of it changes nothing."""
    probe = fake()
    empty = replace(probe, inputs=np.zeros_like(probe.inputs), base=np.zeros_like(probe.base))
    assert all(is_flat(m) for m in run(method, empty))


@pytest.mark.parametrize("method", BLACK_BOX)
def test_a_model_that_ignores_its_input_gives_a_flat_map(method: str) -> None:
    """Whatever masks the draws made more frequent: a constant score is evidence for nothing."""
    answer = np.linspace(-3, 5, CLASSES)
    probe = replace(
        fake(),
        base=np.tile(answer, (2, 1)),
        score_inputs=lambda rows, of: np.tile(answer, (len(of), 1)),
        input_gradients=lambda rows, of: np.zeros_like(rows(np.arange(len(of)))),
        guided_gradients=lambda rows, of: np.zeros_like(rows(np.arange(len(of)))),
    )
    assert all(is_flat(m) for m in run(method, probe))


@pytest.mark.parametrize("method", METHODS)
def test_methods_declare_whether_they_weigh_channels(method: str) -> None:
    """What is asked for a principal component instead of their sum."""
    asked: list[int] = []

    def weigh(weights: NDArray[np.float64], activations: NDArray[np.float32]) -> NDArray[np.float32]:
        asked.append(len(weights))
        return weighted_sum(weights, activations)

    run(method, replace(fake(), weigh=weigh))
    assert bool(asked) == getattr(MODULES[method], "WEIGHTS_CHANNELS", False)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_parameters_are_refused_with_the_known_ones(method: str) -> None:
    kind = discover.load("onnx_inspect.cam", method).Params
    with pytest.raises(MethodError, match="no parameter 'nonsense'"):
        parse_params(kind, {"nonsense": "1"}, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_docstring_names_the_paper_and_the_cost(method: str) -> None:
    text = discover.load("onnx_inspect.cam", method).__doc__ or ""
    assert "Cost:" in text
    assert any(year in text for year in ("20", "19"))


def test_a_wrong_value_of_a_parameter_is_refused() -> None:
    kind = discover.load("onnx_inspect.cam", "recipro-cam").Params
    with pytest.raises(MethodError, match="'logit' or 'probability'"):
        parse_params(kind, {"score": "loud"}, "recipro-cam")
    with pytest.raises(MethodError, match="true or false"):
        parse_params(kind, {"gaussian": "perhaps"}, "recipro-cam")
