"""Names stand where their group is dense, thumbnails spread out, and what is saved is what was agreed."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.analysis.embedding import Embedding, Projection, anchors, spread
from onnx_inspect.analysis.separation import Quality

NONE = Quality(0.5, 0.25, float("nan"), 0.1, 0.9, 10, 7)


def embedding(*layers: str, labels: NDArray[np.int64] | None = None) -> Embedding:
    rng = np.random.default_rng(0)
    labels = np.arange(7) % 2 if labels is None else labels
    return Embedding(
        projections=tuple(Projection(la, 12, rng.normal(size=(7, 2)).astype(np.float32), NONE) for la in layers),
        method="pca",
        params={"dim": 2, "seed": 0},
        pool="mean",
        model="net.onnx",
        labels=labels,
        predictions=np.zeros(7, np.int64),
        groups=labels,
        names=("a", "b"),
        by="class",
        wrong=labels == 1,
        sources=tuple(f"{n}.png" for n in range(7)),
        classes=("a", "b"),
        comparable=True,
    )


def test_saved_arrays_are_points_labels_predictions_sources_and_meta() -> None:
    arrays = embedding("conv1").arrays()
    assert list(arrays) == ["points", "labels", "predictions", "sources", "meta"]
    assert arrays["points"].shape == (7, 2) and arrays["labels"].dtype == arrays["predictions"].dtype == np.int64
    assert arrays["sources"].tolist() == [f"{n}.png" for n in range(7)]
    meta = json.loads(str(arrays["meta"]), parse_constant=lambda text: 1 / 0)
    assert (meta["layer"], meta["method"], meta["params"]) == ("conv1", "pca", {"dim": 2, "seed": 0})
    assert meta["quality"]["knn"] == 0.5 and meta["quality"]["silhouette"] is None and meta["misclassified"] == 3


def test_of_several_layers_the_deepest_is_points_and_each_has_its_own() -> None:
    found = embedding("conv1", "a/conv2")
    arrays = found.arrays()
    np.testing.assert_array_equal(arrays["points"], arrays["points@a/conv2"])
    assert "points@conv1" in arrays and (arrays["points"] != arrays["points@conv1"]).any()
    meta = json.loads(str(arrays["meta"]))
    assert meta["layer"] == "a/conv2" and list(meta["layers"]) == ["conv1", "a/conv2"]


def test_names_stand_where_most_neighbours_are_of_their_group() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 50, rng.normal(size=(2, 2))])
    groups = np.array([0] * 40 + [1] * 40 + [2] * 2)
    found = dict(anchors(points.astype(np.float32), groups))
    assert set(found) == {0, 1}  # the two of group 2 lie among others
    assert groups[found[0]] == 0 and groups[found[1]] == 1


def test_samples_without_a_group_and_single_samples_have_no_name() -> None:
    assert anchors(np.zeros((1, 2), np.float32), np.array([0])) == ()
    assert anchors(np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32), np.full(30, -1)) == ()


def test_spread_samples_lie_in_cells_of_their_own() -> None:
    points = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    chosen = spread(points, 6)
    span = np.ptp(points, axis=0).max()
    cells = np.floor((points - points.min(axis=0)) / span * (6 - 1e-6))
    kept = {tuple(cell) for cell in cells[chosen].tolist()}
    assert len(kept) == len(chosen) == len({tuple(cell) for cell in cells.tolist()})


def test_points_in_one_place_give_one_thumbnail() -> None:
    assert spread(np.ones((9, 2), np.float32), 6).tolist() == [0]
