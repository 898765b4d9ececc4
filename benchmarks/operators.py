"""Which operators have gradients: onnx's own backend node tests, differentiated and checked by differences.

    python benchmarks/operators.py

prints each operator with how many of its test models came out how, and the counts. Needs onnx's test extras only.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from onnx_inspect.errors import InspectError
from onnx_inspect.graph.gradient import gradient, gradient_name
from onnx_inspect.graph.read import parse

Arrays = dict[str, NDArray[Any]]
FLOATS = ("float16", "float32", "float64")
# Inputs that say how, not what: their own derivatives are not looked at, and moving them would change shapes.
SETTINGS = ("roi", "scales", "ratio", "cos_cache", "sin_cache", "sizes")
TOLERANCE = 0.03  # of the sum of all products of gradient and step: differences of float32 are no better

# How a case comes out.
CHECKED, FLAT, REFUSED, WRONG = "checked", "flat", "no rule", "wrong"
NOT_RUN, NOT_REAL = "not run here", "no real numbers"


@dataclass(frozen=True)
class Case:
    """One test model: its operator (``several`` where it has more nodes), how it came out, and why."""

    name: str
    operator: str
    outcome: str
    note: str = ""


def survey() -> Iterator[Case]:
    """Differentiate every node test of onnx with respect to its first input of real numbers, and check it."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for test in load_model_tests(kind="node"):
            nodes = test.model.graph.node
            domain = f"{nodes[0].domain}." if nodes and nodes[0].domain else ""
            kind = domain + nodes[0].op_type if len(nodes) == 1 else "several"
            yield Case(test.name, kind, *_outcome(test))


def _outcome(test: Any) -> tuple[str, str]:
    feeds = _feeds(test)
    real = [name for name, value in feeds.items() if value.dtype.name in FLOATS and value.size]
    if not real:
        return NOT_REAL, ""
    try:
        session = _session(test.model)
        made = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
    except Exception as error:  # whatever the runtime can't do is not asked of a gradient
        return NOT_RUN, str(error)[:120]
    output = next((n for n, v in made.items() if _is_real(v)), None)
    if output is None:
        return NOT_REAL, ""
    feeds = _off_the_kinks(session, feeds, real, output)
    seed = np.random.default_rng(1).normal(size=np.shape(made[output]))
    name = real[0]
    try:
        model = parse(test.model.SerializeToString(), source=test.name)
        built = gradient(model, [name], output)
    except InspectError as error:
        text = str(error)
        flat = "zero everywhere" in text or "doesn't depend" in text
        return (FLAT if flat else REFUSED), text
    added = next(i for i in built.inputs if i.name not in feeds)
    given = feeds | {added.name: seed.astype(added.dtype)}
    value = _session(built.proto).run([gradient_name(name)], given)[0]
    return _checked(session, feeds, name, output, seed, value)


def _checked(
    session: Any, feeds: Arrays, name: str, output: str, seed: NDArray[np.float64], value: NDArray[Any]
) -> tuple[str, str]:
    """Compare with differences along two random directions, at the step size that suits best."""
    if value.shape != feeds[name].shape or not np.isfinite(value).all():
        return WRONG, f"shape {value.shape}, finite {np.isfinite(value).all()}"
    x = feeds[name].astype(np.float64)
    largest = max(float(np.abs(x).max()), 1e-3)
    precision = {"float16": 1e-3, "float32": 1e-7, "float64": 1e-15}[feeds[name].dtype.name]
    steps = {"float16": (0.05, 0.1, 0.2), "float32": (1e-3, 3e-3, 1e-2, 3e-2), "float64": (1e-6, 1e-5)}
    rng, best = np.random.default_rng(2), np.inf

    def score(moved: NDArray[Any]) -> float:
        return float((np.asarray(session.run([output], {**feeds, name: moved})[0], np.float64) * seed).sum())

    noise = 4 * precision * float(np.abs(np.asarray(session.run([output], feeds)[0], np.float64) * seed).sum())
    for step in steps[feeds[name].dtype.name]:
        errors = []
        for _ in range(2):
            move = step * rng.normal(size=x.shape) * (np.abs(x) + 0.05 * largest)
            up, down = (np.asarray(x + sign * move, feeds[name].dtype) for sign in (1, -1))
            change = up.astype(np.float64) - down.astype(np.float64)
            expected = value.astype(np.float64) * change
            error = abs(score(up) - score(down) - expected.sum()) - noise
            errors.append(error / (np.abs(expected).sum() + 1e-6 * largest))
        best = min(best, max(errors))
    return (CHECKED if best <= TOLERANCE else WRONG), f"relative error {max(best, 0):.1e}"


def _feeds(test: Any) -> Arrays:
    """Inputs of the test by name; none where they are sequences or left out."""
    names = [v.name for v in test.model.graph.input]
    given = test.data_sets[0][0] if test.data_sets else []
    try:
        values = [onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else np.asarray(v) for v in given]
    except (TypeError, ValueError):
        return {}
    whole = len(values) == len(names) and all(v.dtype != object for v in values)
    return dict(zip(names, values, strict=True)) if whole else {}


def _off_the_kinks(session: Any, feeds: Arrays, real: list[str], output: str) -> Arrays:
    """Move the inputs a little: the tests' own numbers are often equal, whole, or 0, where derivatives jump."""
    moved = dict(feeds)
    for name in real:
        if name in SETTINGS or not np.isfinite(feeds[name]).all():
            continue
        rng, value = np.random.default_rng(5), feeds[name].astype(np.float64)
        size = max(float(np.abs(value).max()), 1e-3)
        other = value * (1 + 0.05 * rng.random(value.shape)) + 0.01 * size * rng.random(value.shape)
        trial = moved | {name: np.asarray(other, feeds[name].dtype)}
        before = session.run([output], moved)[0]
        after = session.run([output], trial)[0]
        if np.shape(before) == np.shape(after) and np.isfinite(after).all():
            moved = trial
    return moved


def _is_real(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype.name in FLOATS
        and value.size > 0
        and bool(np.isfinite(value).all())
    )


def _session(proto: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_operator(cases: list[Case]) -> Mapping[str, Counter[str]]:
    """Outcomes of each operator's test models, by its name."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        found[case.operator][case.outcome] += 1
    return dict(sorted(found.items()))


def main() -> None:
    onnxruntime.set_default_logger_severity(4)
    cases = list(survey())
    table = by_operator(cases)
    columns = (CHECKED, FLAT, REFUSED, WRONG, NOT_RUN, NOT_REAL)
    print(f"{'operator':34s}" + "".join(f"{c:>17s}" for c in columns))
    for operator, outcomes in table.items():
        if any(outcomes[c] for c in columns[:4]):
            print(f"{operator:34s}" + "".join(f"{outcomes[c] or '':>17}" for c in columns))
    single = [o for name, o in table.items() if name != "several"]
    print(f"\n{len(cases)} models:", ", ".join(f"{n} {c}" for c, n in Counter(c.outcome for c in cases).most_common()))
    print(
        f"operators with a checked gradient: {sum(bool(o[CHECKED]) for o in single)}; flat only:"
        f" {sum(bool(o[FLAT]) and not o[CHECKED] for o in single)}; differentiable ones without a rule:"
        f" {sum(bool(o[REFUSED]) and not o[CHECKED] for o in single)}"
    )
    for case in cases:
        if case.outcome in (WRONG, REFUSED):
            print(f"  {case.outcome}: {case.name}: {case.note[:200]}")


if __name__ == "__main__":
    main()
