"""What a CAM method sees of a model, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._budget import Estimate, Meter
from onnx_inspect.cam._concepts import Concepts
from onnx_inspect.errors import MethodError
from onnx_inspect.ops import sigmoid, softmax
from onnx_inspect.params import parse_params as parse_params

Index = NDArray[np.intp]
Maps = NDArray[np.float32]
Rows = Callable[[Index], Maps]  # positions into a list of variants -> those variants, made when they are run
EXACT = 1e-5  # of the scores' range: a linear tail in float32
Score = Callable[[Rows, Index], NDArray[np.float64]]  # (variants, the input each stems from) -> (B, classes)
ScorePooled = Callable[[Maps, Index], NDArray[np.float64]]  # (each channel's mean (B, K), as above) -> (B, classes)
LayerGradients = Callable[[], Maps]
BiasShares = Callable[[int], list[Maps]]
InputGradients = Callable[[Rows, Index], Maps]  # (variants, the input each stems from) -> (B, C, H, W)
Weigh = Callable[[NDArray[Any], Maps], Maps]  # (weights (N, K), activations (N, K, h, w)) -> (N, h, w)


def weighted_sum(weights: NDArray[Any], activations: Maps) -> Maps:
    """``sum_k w_k A_k`` of weights (N, K) and activations (N, K, *grid), as (N, *grid)."""
    # No BLAS for so little: its threads would spin on beside the runtime's and slow the next forward pass.
    return np.einsum("nk,nk...->n...", weights, activations).astype(np.float32)


def no_linear_tail(pooled: Maps, of: Index) -> NDArray[np.float64]:
    """Refuse: nothing is known of the tail.

    Raises
    ------
    MethodError
    """
    raise MethodError("what follows the layer is not pooling and one linear layer")


def no_gradients(*_: Any) -> Any:
    """Refuse: nothing differentiates the model.

    Raises
    ------
    MethodError
    """
    raise MethodError("nothing gives gradients here: use a method that needs none")


@dataclass
class Account:
    """What a method's shares add up to, (N,), and what they should; None until it has said so."""

    total: NDArray[np.float64] | None = None
    change: NDArray[np.float64] | None = None

    def close(self, total: NDArray[np.float64], change: NDArray[np.float64]) -> None:
        """Take down what the shares of each input add up to, and what they should, in the score's unit."""
        self.total, self.change = total, change

    def describe(self, index: int) -> str:
        """Say it of one input, in one line; "" before :meth:`close`."""
        if self.total is None or self.change is None:
            return ""
        total, change = float(self.total[index]), float(self.change[index])
        share = f"{abs(change - total) / abs(change):.1%}" if change else f"{change - total:.2g}"
        return f"shares: {total:.4g} of {change:.4g}, off {share}"


@dataclass(frozen=True)
class Probe:
    """A batch of inputs, a layer's activations, and the means to ask the model for scores.

    Attributes
    ----------
    inputs : ndarray, (N, C, H, W), float32
        Preprocessed, presented channels first whatever the model's own layout; (N, C, D, H, W) of volumes.
    activations : ndarray, (N, K, h, w), float32
        The layer's output; tokens on their grid, a signal as one row; (N, K, d, h, w) of volumes.
    classes : ndarray, (N,), int
        Column of the scores that is explained for each input: its class, or 0 where the target is a single number.
    base : ndarray, (N, classes), float64
        Scores of the inputs as they are; (N, 1) where the target is no class.
    score_inputs, score_activations : callable
        Run variants of the inputs through the whole model, or variants of the activations through its tail. They get
        a function that makes the variants of given positions, and the input that each stems from.
    logits : bool
        Whether scores are logits: only then does a softmax, or a sigmoid, make probabilities of them.
    independent : bool
        Whether it is a sigmoid.
    weights : callable
        Weights of a linear tail for each input's class, (N, K); raises MethodError where the tail isn't linear. Takes
        the error to allow, as a share of the scores' range.
    rng : numpy.random.Generator
        For methods that sample.
    score_pooled : callable
        Scores of variants of the activations from each channel's mean alone, without a run; raises MethodError where
        the tail isn't linear to float32's precision.
    cells : tuple of N ndarrays, (H, W), int, or None
        Parts that each input falls into by itself, numbered from 0: a text's tokens. None where there are none.
    layer_gradients : callable
        Gradients of each input's score by its activations, (N, K, h, w): a run of the tail and its gradient.
    layer_curvature : callable
        Second derivatives of each input's score by its activations, times the activations, (N, K, h, w): a run of the
        tail, its gradient and that one's gradient.
    input_gradients : callable
        Gradients of variants' scores by the variants themselves, (B, C, H, W): a run of the model and its gradient.
    every_class : bool
        Whether the columns of the scores are all the classes that the model knows, by their index.
    finer : callable
        Gives the last activations of each finer resolution before the layer, (N, K, h, w) each, from coarse to fine.
    readings : mapping
        Columns of the scores that read the target in another way, by its name; the same for every input.
    guided_gradients : callable
        The same with rectifiers that let only positive gradients pass.
    bias_shares : callable
        Each bias of the model times the score's gradient by it, for the input of an index: (K, h, w) each, (K, 1, 1)
        where a bias has no place on the input's plane.
    account : Account or None
        Takes down whether shares add up, for methods whose shares should.
    weigh : callable
        Makes one map of each input's channels and their weights, (N, K): their weighted sum, unless the user asked for
        something smoother.
    meter : Meter or None
        What methods that run many masks may spend; None for all of them.
    """

    inputs: Maps
    activations: Maps
    classes: Index
    base: NDArray[np.float64]
    score_inputs: Score
    score_activations: Score
    logits: bool
    weights: Callable[[float], Maps]
    rng: np.random.Generator
    independent: bool = False
    score_pooled: ScorePooled = no_linear_tail
    cells: tuple[Index, ...] | None = None
    layer_gradients: LayerGradients = no_gradients
    layer_curvature: LayerGradients = no_gradients
    input_gradients: InputGradients = no_gradients
    every_class: bool = False
    finer: Callable[[], tuple[Maps, ...]] = tuple
    readings: Mapping[str, int] = field(default_factory=dict)
    guided_gradients: InputGradients = no_gradients
    bias_shares: BiasShares = no_gradients
    account: Account | None = None
    weigh: Weigh = weighted_sum
    meter: Meter | None = None

    def of_class(self, scores: NDArray[np.float64], of: Index, *, probability: bool = False) -> NDArray[np.float64]:
        """Each row's score for its input's class, (B,); as a probability when asked and when scores are logits."""
        columns = np.arange(len(of)), self.classes[of]
        if not (probability and self.logits):
            return np.asarray(scores[columns])
        return sigmoid(scores[columns]) if self.independent else softmax(scores)[columns]

    def weighted(self, weights: NDArray[Any]) -> Maps:
        """One map of weighted channels, (N, h, w), from weights (N, K): ``sum_k w_k A_k``."""
        return self.weigh(weights, self.activations)

    def scores(self, rows: Rows, of: Index, *, probability: bool = False) -> NDArray[np.float64]:
        """Target scores of input variants, (B,): one full pass each."""
        return self.of_class(self.score_inputs(rows, of), of, probability=probability)

    def tail_scores(self, rows: Rows, of: Index, *, probability: bool = False) -> NDArray[np.float64]:
        """Target scores of activation variants, (B,): one tail pass each."""
        return self.of_class(self.score_activations(rows, of), of, probability=probability)

    def pooled_scores(self, pooled: Maps, of: Index, *, probability: bool = False) -> NDArray[np.float64] | None:
        """Target scores (B,) of activation variants, from their channels' means (B, K): no pass at all.

        None unless the tail is linear to float32's precision.
        """
        try:
            scores = self.score_pooled(pooled, of)
        except MethodError:
            return None
        return self.of_class(scores, of, probability=probability)

    def linear_weights(self) -> Maps | None:
        """Weights of a tail that is linear to float32's precision, (N, K); None for any other tail."""
        try:
            return self.weights(EXACT)
        except MethodError:
            return None

    def base_scores(self, *, probability: bool = False) -> NDArray[np.float64]:
        """Target scores of the inputs as they are, (N,)."""
        return self.of_class(self.base, np.arange(len(self.classes)), probability=probability)


@dataclass(frozen=True)
class Attribution:
    """Saliency maps of one method at one layer.

    Attributes
    ----------
    values : ndarray, (N, h, w), float32
        Raw and signed, at the layer's own resolution or the input's: larger speaks for the target.
    method : str
    layer : str
        "" where the method looks at none; several that were combined are joined by " + ".
    params : mapping
    targets : tuple of str
        What was explained for each input.
    classes : ndarray, (N,), int
        Class index for each input; -1 where the target is no class, or there is none.
    scores : ndarray, (N,), float64
        The target's probability where it can be had, else its raw score.
    target : str
        The target in the words of the command line: ``top-1``, ``box:10,20,80,90``; "" where there is none.
    boxes : tuple of (x0, y0, x1, y1) or None
        The box that is explained in each input, in [0, 1] of the model's plane.
    passes, tail_passes : int
        Runs of the whole model and of its tail, per batch.
    seconds : float
    provider : str
    class_aware : bool
        Whether the map depends on the target at all.
    notes : tuple of str
        Choices made for the user.
    estimate : Estimate or None
        What was spent under a budget; None where the map is the method's definition.
    tokenwise : bool
        Whether a text's values are those of its tokens' vectors, also of tokens that are no text and never hidden.
    account : Account or None
        What the shares add up to and what they should; None for methods whose shares needn't.
    concepts : Concepts or None
        The several maps of a method that finds parts; `values` then hold the strongest at each place.
    """

    values: Maps
    method: str
    layer: str
    params: Mapping[str, Any]
    targets: tuple[str, ...]
    classes: Index
    scores: NDArray[np.float64]
    passes: int
    tail_passes: int
    seconds: float
    provider: str
    class_aware: bool
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    target: str = ""
    boxes: tuple[tuple[float, float, float, float] | None, ...] = ()
    estimate: Estimate | None = None
    tokenwise: bool = False
    account: Account | None = None
    concepts: Concepts | None = None

    @property
    def flat(self) -> tuple[bool, ...]:
        """Whether each map says the same everywhere (or isn't finite): no evidence, nothing to draw."""
        return tuple(is_flat(m) for m in self.values)

    def peak(self, index: int) -> tuple[float, ...]:
        """Centre of a map's strongest cell as (x, y), or (x, y, z), in [0, 1] of the model's input plane or volume."""
        values = np.where(np.isfinite(self.values[index]), self.values[index], -np.inf)
        cell = np.unravel_index(int(np.argmax(values)), values.shape)
        return tuple((float(at) + 0.5) / side for at, side in zip(cell, values.shape, strict=True))[::-1]


def is_flat(values: Maps) -> bool:
    """Whether a map is constant up to rounding, or not finite."""
    if not np.isfinite(values).all():
        return True
    span = float(values.max() - values.min())
    return span <= 1e-6 * float(np.abs(values).max()) or span == 0.0
