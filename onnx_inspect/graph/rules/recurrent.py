"""How recurrent layers are differentiated: unrolled over a sequence whose length is written in the model.

Each is computed anew, turn by turn, by standard operators; those are differentiated. A length that is known only when
the model runs would need a loop, and a long one a graph of many thousand nodes: both are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_inspect.graph.rules._rule import expansion
from onnx_inspect.graph.rules._step import Step

LONGEST = 512  # turns; each takes about 60 nodes
ALPHAS = {"Affine": 1.0, "LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "ScaledTanh": 1.0, "HardSigmoid": 0.2, "Elu": 1.0}
BETAS = {"Affine": 0.0, "ScaledTanh": 1.0, "HardSigmoid": 0.5}

Function = Callable[[str], str]
Turn = Callable[["_Direction", str, tuple[str, ...]], tuple[str, ...]]  # (what the input adds, states) -> states


@expansion("LSTM")
def lstm(step: Step) -> list[str]:
    """Long short-term memory (Hochreiter and Schmidhuber 1997), gates in the order input, output, forget, cell."""
    if step.attribute("input_forget", 0):
        raise step.fail("its input and forget gates are coupled")
    return _unrolled(step, _lstm_turn, 4, ("Sigmoid", "Tanh", "Tanh"), 2)


@expansion("GRU")
def gru(step: Step) -> list[str]:
    """Gated recurrent unit (Cho et al. 2014), gates in the order update, reset, hidden."""
    return _unrolled(step, _gru_turn, 3, ("Sigmoid", "Tanh"), 1)


@expansion("RNN")
def rnn(step: Step) -> list[str]:
    """A plain recurrent layer: one function of input and state."""
    return _unrolled(step, _rnn_turn, 1, ("Tanh",), 1)


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer: its weights, (I, gates H) and (H, gates H), its functions and its sizes."""

    step: Step
    input: str
    state: str
    bias: str
    state_bias: str
    peepholes: tuple[str, ...]
    functions: tuple[Function, ...]
    hidden: int

    def parts(self, name: str, count: int) -> list[str]:
        """Cut the last axis into gates."""
        if count == 1:
            return [name]
        return self.step.ops("Split", count, name, self.step.ints([self.hidden] * count), axis=-1)


def _lstm_turn(way: _Direction, given: str, states: tuple[str, ...]) -> tuple[str, ...]:
    step, (hidden, cell) = way.step, states
    gates = step.op("Add", given, step.op("MatMul", hidden, way.state))
    enter, leave, keep, new = way.parts(gates, 4)
    squash, shape, show = way.functions
    if way.peepholes:
        enter = step.op("Add", enter, step.op("Mul", way.peepholes[0], cell))
        keep = step.op("Add", keep, step.op("Mul", way.peepholes[2], cell))
    kept = step.op("Mul", squash(keep), cell)
    cell = step.op("Add", kept, step.op("Mul", squash(enter), shape(new)))
    if way.peepholes:
        leave = step.op("Add", leave, step.op("Mul", way.peepholes[1], cell))
    return step.op("Mul", squash(leave), show(cell)), cell


def _gru_turn(way: _Direction, given: str, states: tuple[str, ...]) -> tuple[str, ...]:
    step, (hidden,) = way.step, states
    update_in, reset_in, new_in = way.parts(given, 3)
    squash, shape = way.functions
    if step.attribute("linear_before_reset", 0):
        turned = step.op("Add", step.op("MatMul", hidden, way.state), way.state_bias)
        update, reset, new = way.parts(turned, 3)
        update, reset = squash(step.op("Add", update_in, update)), squash(step.op("Add", reset_in, reset))
        fresh = shape(step.op("Add", new_in, step.op("Mul", reset, new)))
    else:
        weights, biases = way.parts(way.state, 3), way.parts(way.state_bias, 3)

        def added(one: str, state: str, k: int) -> str:
            return step.op("Add", one, step.op("Add", step.op("MatMul", state, weights[k]), biases[k]))

        update, reset = squash(added(update_in, hidden, 0)), squash(added(reset_in, hidden, 1))
        fresh = shape(added(new_in, step.op("Mul", reset, hidden), 2))
    change = step.op("Mul", update, step.op("Sub", hidden, fresh))
    return (step.op("Add", fresh, change),)


def _rnn_turn(way: _Direction, given: str, states: tuple[str, ...]) -> tuple[str, ...]:
    step = way.step
    return (way.functions[0](step.op("Add", given, step.op("MatMul", states[0], way.state))),)


def _unrolled(step: Step, turn: Turn, gates: int, usual: Sequence[str], states: int) -> list[str]:
    """Compute a layer turn by turn: all states (T, D, N, H), and the last ones (D, N, H) of each kind."""
    last = step.attribute("layout", 0)
    source = step.op("Transpose", step.x(0), perm=[1, 0, 2]) if last else step.x(0)  # (T, N, I)
    length = (step.shape(step.inputs[0]) or (None, None))[1 if last else 0]
    if not isinstance(length, int):
        raise step.fail("its sequence's length isn't known before the model runs")
    if length > LONGEST:
        raise step.fail(f"its sequence of {length} turns is longer than {LONGEST}")
    direction = step.attribute("direction", "forward")
    ways = ["forward", "reverse"] if direction == "bidirectional" else [direction]
    weight = step.shape(step.inputs[2])
    hidden = step.attribute("hidden_size") or (weight[2] if weight else None)
    if not isinstance(hidden, int):
        raise step.fail("nothing tells the size of its state")
    functions = list(_functions(step, [*usual] * len(ways)))
    all_states, ends = [], []
    for k, way in enumerate(ways):
        own = tuple(functions[k * len(usual) : (k + 1) * len(usual)])
        layer = _direction(step, k, gates, own, hidden)
        begun = tuple(_initial(step, layer, k, s, source, last) for s in range(states))
        made, end = _run(layer, turn, source, begun, length, backwards=way == "reverse")
        all_states.append(step.op("Unsqueeze", made, step.ints([1])))  # (T, 1, N, H)
        ends.append([step.op("Unsqueeze", name, step.ints([0])) for name in end])
    whole = step.op("Concat", *all_states, axis=1)
    finals = [step.op("Concat", *(end[s] for end in ends), axis=0) for s in range(states)]
    if last:
        whole = step.op("Transpose", whole, perm=[2, 0, 1, 3])
        finals = [step.op("Transpose", name, perm=[1, 0, 2]) for name in finals]
    return [whole, *finals]


def _run(
    way: _Direction, turn: Turn, source: str, begun: tuple[str, ...], length: int, *, backwards: bool
) -> tuple[str, tuple[str, ...]]:
    """All hidden states in the order of the sequence, (T, N, H), and the last states."""
    step = way.step
    given = step.op("Add", step.op("MatMul", source, way.input), way.bias)  # (T, N, gates H)
    parts = [given] if length == 1 else step.ops("Split", length, given, step.ints([1] * length), axis=0)
    parts = [step.op("Squeeze", part, step.ints([0])) for part in parts]
    made: dict[int, str] = {}
    states = begun
    for t in reversed(range(length)) if backwards else range(length):
        later = turn(way, parts[t], states)
        shown = later[0]
        if step.has(4):  # behind a sequence's end its states stay, and what is shown is 0
            alive = step.flag("Less", step.integer(t), step.writer.cast(step.inputs[4], "int64"))
            alive = step.op("Unsqueeze", alive, step.ints([1]))
            later = tuple(
                step.op("Add", old, step.op("Mul", alive, step.op("Sub", new, old)))
                for old, new in zip(states, later, strict=True)
            )
            shown = step.op("Mul", alive, shown)
        states, made[t] = later, shown
    rows = [step.op("Unsqueeze", made[t], step.ints([0])) for t in range(length)]
    return step.op("Concat", *rows, axis=0), states


def _direction(step: Step, k: int, gates: int, functions: tuple[Function, ...], hidden: int) -> _Direction:
    """Read the weights of one direction; biases that no gate tells apart are added up."""
    turned = [step.op("Transpose", _picked(step, step.x(i), k), perm=[1, 0]) for i in (1, 2)]
    size = gates * hidden
    if step.has(3):
        biases = step.ops("Split", 2, _picked(step, step.x(3), k), step.ints([size, size]), axis=0)
    else:
        biases = [step.numbers(np.zeros(size))] * 2
    apart = step.node.op_type == "GRU"
    bias = biases[0] if apart else step.op("Add", *biases)
    peepholes: tuple[str, ...] = ()
    if step.has(7):
        peepholes = tuple(step.ops("Split", 3, _picked(step, step.x(7), k), step.ints([hidden] * 3), axis=0))
    return _Direction(step, turned[0], turned[1], bias, biases[1] if apart else "", peepholes, functions, hidden)


def _initial(step: Step, way: _Direction, k: int, s: int, source: str, last: int) -> str:
    """First state of a kind, (N, H); zeros where none is given."""
    if step.has(5 + s):
        name = step.op("Transpose", step.x(5 + s), perm=[1, 0, 2]) if last else step.x(5 + s)
        return _picked(step, name, k)
    count = step.op("Slice", step.op("Shape", source), step.ints([1]), step.ints([2]))
    return step.op("Expand", step.number(0), step.op("Concat", count, step.ints([way.hidden]), axis=0))


def _picked(step: Step, name: str, k: int) -> str:
    """One direction's part of what both have."""
    return step.op("Squeeze", step.op("Slice", name, step.ints([k]), step.ints([k + 1])), step.ints([0]))


def _functions(step: Step, usual: Sequence[str]) -> Iterator[Function]:
    """The functions of each direction; alphas and betas belong to those that have one, in order.

    What goes into them is clipped, but not the cell that an LSTM shows: onnxruntime does it so.
    """
    alphas, betas = iter(step.attribute("activation_alpha", [])), iter(step.attribute("activation_beta", []))
    known = {name.lower(): name for name in (*ALPHAS, "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")}
    bound = step.attribute("clip", 0.0)
    for k, text in enumerate(step.attribute("activations") or usual):
        text = text.decode() if isinstance(text, bytes) else text
        name = known.get(text.lower(), "")
        if not name:
            raise step.fail(f"there is no rule for its function {text!r}")
        alpha = next(alphas, ALPHAS[name]) if name in ALPHAS else 0.0
        beta = next(betas, BETAS[name]) if name in BETAS else 0.0
        shows = step.node.op_type == "LSTM" and k % 3 == 2
        yield _function(step, name, alpha, beta, 0.0 if shows else bound)


def _function(step: Step, name: str, alpha: float, beta: float, bound: float) -> Function:
    def apply(x: str) -> str:
        if bound:
            x = step.op("Clip", x, step.number(-bound), step.number(bound))
        if name == "Affine":
            return step.op("Add", step.op("Mul", x, step.number(alpha)), step.number(beta))
        if name == "ScaledTanh":
            return step.op("Mul", step.op("Tanh", step.op("Mul", x, step.number(beta))), step.number(alpha))
        settings = {"alpha": alpha} if name in ALPHAS else {}
        return step.op(name, x, **settings, **({"beta": beta} if name in BETAS else {}))

    return apply
