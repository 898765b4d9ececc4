"""Recurrent layers: gradients of input, weights, biases and initial states against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.gradient import gradient
from onnx_inspect.graph.rules._rule import table
from tests.conftest import make_model
from tests.graph.rules.oracle import Arrays, check

torch = pytest.importorskip("torch", reason="PyTorch's autograd is the oracle")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, N, WIDTH, H = 5, 2, 3, 4
# Plain loops in PyTorch: onnx's reference is left out (it has one direction and no lengths).
ALIKE = {"double": False, "open_axes": False}


def drawn(kind: str, directions: int, *, states: bool = True) -> Arrays:
    rng, gates = np.random.default_rng(0), GATES[kind]
    inputs = {
        "x": rng.normal(size=(T, N, WIDTH)),
        "w": rng.normal(0, 0.5, size=(directions, gates * H, WIDTH)),
        "r": rng.normal(0, 0.5, size=(directions, gates * H, H)),
        "b": rng.normal(size=(directions, 2 * gates * H)),
    }
    if states:
        inputs["h"] = rng.normal(size=(directions, N, H))
        if kind == "LSTM":
            inputs["c"] = rng.normal(size=(directions, N, H))
    return inputs


def names(inputs: Arrays, lengths: str = "") -> list[str]:
    states = [n for n in ("h", "c") if n in inputs]
    return ["x", "w", "r", "b", *([lengths, *states] if states or lengths else [])]


def loop(kind: str, *, reset_first: bool = True, lengths: Any = None) -> Any:
    """The definition, one direction after another; (T, D, N, H) and the last states."""

    def formula(x: Any, w: Any, r: Any, b: Any, h: Any = None, c: Any = None, *, last: int = 0) -> Any:
        shown, ends = [], []
        for k in range(len(w)):
            state = x.new_zeros(N, H) if h is None else h[k]
            cell = x.new_zeros(N, H) if c is None else c[k]
            rows: dict[int, Any] = {}
            for t in range(T) if k == 0 else reversed(range(T)):
                before, held = state, cell
                state, cell = cell_step(kind, x[t], state, cell, w[k], r[k], b[k], reset_first)
                alive = 1.0 if lengths is None else (t < lengths).to(x.dtype)[:, None]
                rows[t] = alive * state
                state, cell = before + alive * (state - before), held + alive * (cell - held)
            shown.append(torch.stack([rows[t] for t in range(T)]))
            ends.append((state, cell))
        return torch.stack([e[last - 1] for e in ends]) if last else torch.stack(shown, 1)

    return formula


def cell_step(kind: str, x: Any, h: Any, c: Any, w: Any, r: Any, b: Any, reset_first: bool) -> tuple[Any, Any]:
    size = len(b) // 2
    if kind == "LSTM":
        i, o, f, g = (x @ w.T + h @ r.T + b[:size] + b[size:]).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    if kind == "RNN":
        return torch.tanh(x @ w.T + h @ r.T + b[:size] + b[size:]), c
    (wz, wr, wh), (rz, rr, rh) = w.chunk(3), r.chunk(3)
    bz, br, bh, sz, sr, sh = b.chunk(6)
    z, reset = torch.sigmoid(x @ wz.T + h @ rz.T + bz + sz), torch.sigmoid(x @ wr.T + h @ rr.T + br + sr)
    new = (reset * h) @ rh.T + sh if reset_first else reset * (h @ rh.T + sh)
    return (1 - z) * torch.tanh(x @ wh.T + bh + new) + z * h, c


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("states", [True, False])
def test_all_states_pass_their_gradients_on(kind: str, directions: int, states: bool) -> None:
    inputs = drawn(kind, directions, states=states)
    way = {"direction": "bidirectional" if directions == 2 else "forward"}
    node = helper.make_node(kind, names(inputs), ["y"], hidden_size=H, **way)
    check([node], inputs, loop(kind), **ALIKE)


@pytest.mark.parametrize("reset_first", [True, False])
def test_a_gru_resets_before_or_after_its_product(reset_first: bool) -> None:
    inputs = drawn("GRU", 1)
    node = helper.make_node("GRU", names(inputs), ["y"], hidden_size=H, linear_before_reset=int(not reset_first))
    check([node], inputs, loop("GRU", reset_first=reset_first), **ALIKE)


@pytest.mark.parametrize(("kind", "last"), [("LSTM", 1), ("LSTM", 2), ("GRU", 1), ("RNN", 1)])
def test_last_states_pass_their_gradients_on(kind: str, last: int) -> None:
    inputs = drawn(kind, 2)
    outputs = ["", "", ""][: last + 1]
    outputs[last] = "y"
    node = helper.make_node(kind, names(inputs), outputs, hidden_size=H, direction="bidirectional")
    check([node], inputs, lambda *v: loop(kind)(*v, last=last), **ALIKE)


@pytest.mark.parametrize("kind", GATES)
def test_what_lies_behind_a_sequences_end_gets_nothing(kind: str) -> None:
    inputs = drawn(kind, 2)
    lengths = np.array([5, 3], np.int32)
    node = helper.make_node(kind, names(inputs, "n"), ["y"], hidden_size=H, direction="bidirectional")
    made = check([node], inputs, loop(kind, lengths=torch.tensor(lengths)), constants={"n": lengths}, **ALIKE)
    np.testing.assert_array_equal(made["x"][3:, 1], 0)


def test_peepholes_clips_and_other_functions_are_followed() -> None:
    rng = np.random.default_rng(0)
    inputs = drawn("LSTM", 1) | {"p": rng.normal(size=(1, 3 * H))}

    def formula(x: Any, w: Any, r: Any, b: Any, h: Any, c: Any, p: Any) -> Any:
        squash = lambda v: torch.clamp(0.25 * torch.clamp(v, -1.5, 1.5) + 0.5, 0, 1)  # noqa: E731
        pi, po, pf = p[0].chunk(3)
        state, cell, rows = h[0], c[0], []
        for row in x:
            i, o, f, g = (row @ w[0].T + state @ r[0].T + b[0, : 4 * H] + b[0, 4 * H :]).chunk(4, 1)
            new = torch.relu(torch.clamp(g, -1.5, 1.5))
            cell = squash(f + pf * cell) * cell + squash(i + pi * cell) * new
            state = squash(o + po * cell) * torch.tanh(cell)
            rows.append(state)
        return torch.stack(rows)[:, None]

    settings = {"activations": ["HardSigmoid", "Relu", "Tanh"], "activation_alpha": [0.25], "clip": 1.5}
    node = helper.make_node("LSTM", [*names(inputs), "p"], ["y"], hidden_size=H, activation_beta=[0.5], **settings)
    built = gradient(make_model([node], {n: (np.float32, v.shape) for n, v in inputs.items()}, ["y"]), ["x", "p"], "y")
    assert {o.name for o in built.outputs} == {"y", "x__gradient", "p__gradient"}
    check([node], inputs, formula, **ALIKE, differences=False)


def test_samples_may_come_first() -> None:
    inputs = drawn("LSTM", 1, states=False)
    inputs["x"] = inputs["x"].transpose(1, 0, 2)
    node = helper.make_node("LSTM", names(inputs), ["y"], hidden_size=H, layout=1)
    model = make_model([node], {n: (np.float32, v.shape) for n, v in inputs.items()}, ["y"])
    assert gradient(model, ["x"], "y").outputs[-1].shape == (N, T, WIDTH)  # onnxruntime has no such layout on a CPU


def test_a_length_that_is_not_known_is_refused_by_name() -> None:
    inputs = drawn("LSTM", 1, states=False)
    shapes: dict[str, Any] = {n: (np.float32, v.shape) for n, v in inputs.items()}
    node = helper.make_node("LSTM", names(inputs), ["y"], hidden_size=H, name="memory")
    for length, reason in (("T", "isn't known before"), (513, "longer than 512")):
        model = make_model([node], shapes | {"x": (np.float32, [length, N, WIDTH])}, ["y"])
        with pytest.raises(LayerError, match=rf"'memory' \(LSTM\).*{reason}"):
            gradient(model, ["x"], "y")


def test_every_rule_of_the_file_is_tested() -> None:
    rules = {name for (_, name), rule in table().items() if rule.__module__.endswith(".recurrent")}
    assert rules == set(GATES)
