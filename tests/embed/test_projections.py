"""Projections are what their libraries give, seeded, and answer to anything that a layer may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_inspect import discover
from onnx_inspect.capture.reading import Sharded
from onnx_inspect.embed import _wide, pca, tsne
from onnx_inspect.errors import MethodError, MissingExtra
from onnx_inspect.params import parse_params

Floats = NDArray[np.float32]
METHODS = discover.names("onnx_inspect.embed")
FAST = [m if m != "umap" else pytest.param(m, marks=pytest.mark.slow) for m in METHODS]  # numba compiles for long


@pytest.fixture(scope="module")
def points() -> Floats:
    """Three clouds in twelve dimensions."""
    rng = np.random.default_rng(0)
    return (rng.normal(0, 4, (3, 12))[np.arange(90) % 3] + rng.normal(size=(90, 12))).astype(np.float32)


def fit(method: str, points: Any, **given: object) -> Floats:
    module = discover.load("onnx_inspect.embed", method)
    if method == "umap":
        pytest.importorskip("umap", reason="the extra `umap` isn't installed")
    given = ({"iterations": 250} if method == "tsne" else {}) | given  # fewer than usual: these are few points
    params = parse_params(module.Params, {name: str(value) for name, value in given.items()}, method)
    return module.fit(points, params)


def test_there_are_three_projections() -> None:
    assert METHODS == ["pca", "tsne", "umap"]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", FAST)
def test_a_projection_is_finite_seeded_and_leaves_its_points_alone(points: Floats, method: str, dim: int) -> None:
    before = points.copy()
    one = fit(method, points, dim=dim, seed=3)
    assert one.shape == (90, dim) and one.dtype == np.float32 and np.isfinite(one).all()
    np.testing.assert_array_equal(one, fit(method, points, dim=dim, seed=3))
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("method", FAST)
def test_clouds_stay_apart(points: Floats, method: str) -> None:
    from sklearn.metrics import silhouette_score

    assert silhouette_score(fit(method, points), np.arange(90) % 3) > 0.5


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("method", FAST)
@pytest.mark.parametrize(
    "odd",
    [
        np.zeros((20, 5), np.float32),
        np.full((20, 5), 7, np.float32),
        np.arange(20, dtype=np.float32)[:, None],  # one feature
        np.random.default_rng(0).normal(size=(3, 200)).astype(np.float32),  # three samples
        np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32),
        np.repeat(np.eye(4, 6, dtype=np.float32), 5, axis=0),  # many that are alike
    ],
    ids=["zeros", "constant", "narrow", "three", "eight", "alike"],
)
def test_whatever_a_layer_holds_is_projected(odd: Floats, method: str, dim: int) -> None:
    found = fit(method, odd, dim=dim)
    assert found.shape == (len(odd), dim) and np.isfinite(found).all()


@pytest.mark.parametrize("dim", [2, 3])
def test_pca_equals_scikit_learn(points: Floats, dim: int) -> None:
    from sklearn.decomposition import PCA

    np.testing.assert_array_equal(pca.fit(points, pca.Params(dim=dim)), PCA(dim, random_state=0).fit_transform(points))


def test_pca_is_the_singular_value_decomposition(points: Floats) -> None:
    centred = points - points.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    ours = pca.fit(points, pca.Params())
    # float32 against float64; each component's sign is free
    np.testing.assert_allclose(np.abs(ours), np.abs(left[:, :2] * values[:2]), atol=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_tsne_equals_scikit_learn(points: Floats, dim: int) -> None:
    from sklearn.manifold import TSNE

    ours = tsne.fit(points, tsne.Params(dim=dim, seed=5, perplexity=12, iterations=250))
    theirs = TSNE(dim, perplexity=12, max_iter=250, init="pca", random_state=5).fit_transform(points)
    np.testing.assert_array_equal(ours, theirs)


def test_wide_features_go_through_their_components_first() -> None:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    wide = np.random.default_rng(0).normal(size=(60, 300)).astype(np.float32)
    ours = tsne.fit(wide, tsne.Params(pca=10, perplexity=8, iterations=250))
    narrow = PCA(10, random_state=0).fit_transform(wide)
    theirs = TSNE(2, perplexity=8, max_iter=250, init="pca", random_state=0).fit_transform(narrow)
    np.testing.assert_array_equal(ours, theirs)


def test_perplexity_is_at_most_a_third_of_the_points() -> None:
    assert tsne.settled(tsne.Params(), 10).perplexity == 3
    assert tsne.settled(tsne.Params(), 1000).perplexity == 30


def test_opentsne_serves_large_sets_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openTSNE", reason="the extra `opentsne` isn't installed")
    assert tsne.settled(tsne.Params(), 6000).library == "opentsne"
    assert tsne.settled(tsne.Params(), 4000).library == "sklearn"
    assert tsne.settled(tsne.Params(library="sklearn"), 6000).library == "sklearn"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tsne.settled(tsne.Params(), 6000).library == "sklearn"


@pytest.mark.slow
def test_opentsne_is_seeded_and_keeps_clouds_apart(points: Floats) -> None:
    pytest.importorskip("openTSNE", reason="the extra `opentsne` isn't installed")
    from sklearn.metrics import silhouette_score

    given = {"library": "opentsne", "iterations": 500}
    one = fit("tsne", points, **given)
    np.testing.assert_array_equal(one, fit("tsne", points, **given))
    assert silhouette_score(one, np.arange(90) % 3) > 0.5


@pytest.mark.parametrize(("method", "package", "extra"), [("umap", "umap", "umap"), ("tsne", "openTSNE", "opentsne")])
def test_a_missing_package_names_its_extra(
    points: Floats, monkeypatch: pytest.MonkeyPatch, method: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    module = discover.load("onnx_inspect.embed", method)
    params = module.Params(**({"library": "opentsne"} if method == "tsne" else {}))
    with pytest.raises(MissingExtra, match=rf"onnx-inspect\[{extra}\]"):
        module.fit(points, params)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("tsne", {"library": "mine"}),
        ("tsne", {"perplexity": "0"}),
        ("tsne", {"iterations": "10"}),
        ("umap", {"neighbours": "1"}),
        ("umap", {"spacing": "2"}),
        ("pca", {"perplexity": "3"}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(method: str, given: dict[str, str]) -> None:
    with pytest.raises(MethodError, match=next(iter(given))):
        parse_params(discover.load("onnx_inspect.embed", method).Params, given, method)


def test_more_than_can_be_held_is_decomposed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On data of rank 5, parts and whole give the same components up to sign."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=(700, 5)) * [9, 7, 5, 3, 2]
    wide = (low @ rng.normal(size=(5, 120))).astype(np.float32)
    parts = []
    for n, part in enumerate(np.array_split(wide, 4)):
        np.save(tmp_path / f"{n}.npy", part)
        parts.append(np.load(tmp_path / f"{n}.npy", mmap_mode="r"))
    whole = _wide.narrowed(wide, 5, 0)
    monkeypatch.setattr(_wide, "IN_MEMORY", 100_000)
    ours = _wide.narrowed(Sharded(tuple(parts)), 5, 0)
    # float32 over seven parts: the subspace is exact, the directions in it to a thousandth of the largest
    np.testing.assert_allclose(np.abs(ours), np.abs(whole), atol=2e-3 * float(np.abs(whole).max()))
