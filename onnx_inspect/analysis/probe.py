"""How much of the classes a straight line can read off each layer: linear probes, cross-validated."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

CLASSIFIERS = ("logistic", "ridge")
FOLDS = 5
COMPONENTS = 256  # that stand for more features: a probe of them takes seconds


@dataclass(frozen=True)
class LayerProbe:
    """One layer's linear classifier.

    Attributes
    ----------
    layer : str
    width : int
        Features, after pooling.
    used : int
        Features or principal components that the classifier got.
    scores : tuple of float
        Accuracy on each fold that it wasn't trained on.
    """

    layer: str
    width: int
    used: int
    scores: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation over the folds."""
        return float(np.std(self.scores))


@dataclass(frozen=True)
class Probes:
    """Linear probes along a network's depth.

    Attributes
    ----------
    layers : tuple of LayerProbe
        In the order of depth.
    chance : float
        Accuracy of always naming the commonest class.
    own : float
        The model's own accuracy on the same samples; NaN where it can't be told.
    classifier, pool, model : str
    samples, classes, folds, seed : int
    left_out : tuple of str
        Classes with fewer samples than folds, which aren't taken part.
    """

    layers: tuple[LayerProbe, ...]
    chance: float
    own: float
    classifier: str
    pool: str
    model: str
    samples: int
    classes: int
    folds: int
    seed: int
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``probe --json`` prints."""
        rows = [
            {"layer": p.layer, "width": p.width, "used": p.used, "accuracy": p.accuracy, "std": p.spread}
            | {"folds": list(p.scores)}
            for p in self.layers
        ]
        own = {name: value for name, value in vars(self).items() if name not in ("layers", "own", "left_out")}
        return own | {"model_accuracy": self.own, "left_out": list(self.left_out), "layers": rows}


@dataclass(frozen=True)
class Folds:
    """Which samples take part, and how they are split: the same for all layers.

    Attributes
    ----------
    chosen : ndarray, (M,), int
        Samples whose class has as many as there are folds.
    labels : ndarray, (M,), int64
    parts : tuple of (ndarray, ndarray)
        For each fold the samples to train on and those to test on, as places in `chosen`.
    left_out : tuple of int
        Classes with too few samples.
    """

    chosen: NDArray[np.intp]
    labels: NDArray[np.int64]
    parts: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]
    left_out: tuple[int, ...]

    @property
    def chance(self) -> float:
        """Accuracy of always naming the commonest class."""
        return float(np.unique(self.labels, return_counts=True)[1].max() / len(self.labels))


def folds(labels: NDArray[np.int64], *, count: int = FOLDS, seed: int = 0) -> Folds:
    """Split labelled samples into stratified folds, shuffled by a seed.

    Parameters
    ----------
    labels : ndarray, (N,), int
        -1 where there is none.

    Raises
    ------
    InputError
        Fewer than two classes with as many samples as there are folds.
    """
    numbers, counts = np.unique(labels[labels >= 0], return_counts=True)
    enough = numbers[counts >= count]
    if len(enough) < 2:
        found = (
            ", ".join(f"{n}: {c}" for n, c in list(zip(numbers.tolist(), counts.tolist(), strict=True))[:6]) or "none"
        )
        raise InputError(
            f"a probe of {count} folds needs two classes with {count} samples each; samples by class are {found}:"
            " give a data set with classes, or fewer --folds"
        )
    from sklearn.model_selection import StratifiedKFold

    chosen = np.flatnonzero(np.isin(labels, enough))
    split = StratifiedKFold(count, shuffle=True, random_state=seed).split(np.zeros(len(chosen)), labels[chosen])
    return Folds(chosen, labels[chosen], tuple(split), tuple(numbers[counts < count].tolist()))


def probe(
    features: NDArray[np.float32], split: Folds, *, classifier: str = "logistic", seed: int = 0
) -> tuple[int, tuple[float, ...]]:
    """Train a linear classifier on all folds but one and test it on that one, for each (Alain and Bengio 2016).

    Features are standardised on the training folds; of more than 256 the principal components of these stand for them.

    Parameters
    ----------
    features : ndarray, (N, D), finite
        Of all samples.
    classifier : {'logistic', 'ridge'}
        Multinomial logistic regression, or least squares with the penalty chosen by leaving one out.

    Returns
    -------
    used : int
        Features or components that it got.
    scores : tuple of float
        Accuracy on each fold.
    """
    from sklearn.pipeline import make_pipeline

    points = features[split.chosen]
    least = min(len(train) for train, _ in split.parts)
    used = min(points.shape[1], COMPONENTS, least - 1) if points.shape[1] > COMPONENTS else points.shape[1]
    scores = []
    for train, test in split.parts:
        model = make_pipeline(*_steps(points.shape[1], used, classifier, seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of iterations: a probe that isn't quite done is as good
            model.fit(points[train], split.labels[train])
        scores.append(float((model.predict(points[test]) == split.labels[test]).mean()))
    return used, tuple(scores)


def probes(
    features: Callable[[str], NDArray[np.float32]],
    layers: dict[str, int],
    labels: NDArray[np.int64],
    *,
    names: tuple[str, ...] | None,
    own: NDArray[np.bool_] | None,
    pool: str,
    model: str,
    classifier: str = "logistic",
    count: int = FOLDS,
    seed: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> Probes:
    """Probe several layers on the same folds.

    Parameters
    ----------
    features : callable
        Gives a layer's features, (N, D).
    layers : dict of layer name to int
        How wide each is.
    names : tuple of str or None
        What the classes are called.
    own : ndarray, (N,), bool, or None
        Which samples the model itself classifies rightly; None where that can't be told.
    report : callable, optional
        Called with (layers done, layers in all).

    Raises
    ------
    InputError
        Too few samples of too few classes.
    """
    split = folds(labels, count=count, seed=seed)
    found = []
    for number, (layer, width) in enumerate(layers.items(), 1):
        used, scores = probe(features(layer), split, classifier=classifier, seed=seed)
        found.append(LayerProbe(layer, width, used, scores))
        if report is not None:
            report(number, len(layers))
    return Probes(
        layers=tuple(found),
        chance=split.chance,
        own=float(own[split.chosen].mean()) if own is not None else float("nan"),
        classifier=classifier,
        pool=pool,
        model=model,
        samples=len(split.chosen),
        classes=len(np.unique(split.labels)),
        folds=count,
        seed=seed,
        left_out=tuple(names[n] if names is not None and n < len(names) else str(n) for n in split.left_out),
    )


def _steps(width: int, used: int, classifier: str, seed: int) -> list[Any]:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    narrow = [PCA(used, random_state=seed), StandardScaler()] if used < width else []
    if classifier == "ridge":
        return [StandardScaler(), *narrow, RidgeClassifierCV(alphas=np.logspace(-2, 4, 7))]
    return [StandardScaler(), *narrow, LogisticRegression(max_iter=300, random_state=seed)]
