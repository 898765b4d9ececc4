"""A scatter shows every sample where it lies, in its class's colour, with a legend that stays readable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from onnx_inspect.analysis.embedding import CELLS, Embedding, Projection, anchors, spread
from onnx_inspect.analysis.separation import quality
from onnx_inspect.render import _cube as cube
from onnx_inspect.render import _groups as grouping
from onnx_inspect.render import embedding as render
from onnx_inspect.render._save import drawn, pixels, save

LONG = "/a/very/long/module/path/layer4.1/block.7/conv2/Conv_output_0_with_more"


def made(
    classes: int, count: int, layers: int = 1, dim: int = 2, *, labelled: bool = True, method: str = "tsne"
) -> Embedding:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, count)
    found = []
    for depth in range(layers):
        centres = rng.normal(0, 3, (classes, dim))
        points = (centres[labels] + rng.normal(0, 0.4, (count, dim))).astype(np.float32)
        axes = ("PC1 40%", "PC2 20%", "PC3 8%")[:dim] if method == "pca" else ()
        measured = quality(points, points, labels, seed=0)
        found.append(Projection(f"{LONG}{depth}", 64, points, measured, axes, anchors(points, labels)))
    predictions = np.where(rng.random(count) < 0.05, (labels + 1) % classes, labels)
    names = tuple(f"class {n}, a long name" for n in range(classes))
    return Embedding(
        projections=tuple(found),
        method=method,
        params={"dim": dim, "seed": 0, "perplexity": 30.0},
        pool="mean",
        model="models/net.onnx",
        labels=labels if labelled else np.full(count, -1),
        predictions=predictions,
        groups=labels,
        names=names,
        by="class" if labelled else "predicted class",
        wrong=(predictions != labels) & labelled,
        sources=tuple(f"{n}.png" for n in range(count)),
        classes=names,
        comparable=labelled,
    )


def scatters(figure: Figure) -> list[PathCollection]:
    """What was scattered, in the order of drawing."""
    return [a for axes in figure.axes for a in axes.collections if isinstance(a, PathCollection)]


def words(figure: Figure) -> list[str]:
    return [t.get_text() for t in (*figure.texts, *(t for axes in figure.axes for t in axes.texts))]


@pytest.mark.parametrize(("classes", "layers"), [(3, 1), (10, 3), (24, 2)])
def test_every_sample_is_drawn_where_it_lies_in_its_colour(classes: int, layers: int) -> None:
    result = made(classes, 200, layers)
    groups = grouping.grouped(result.groups, result.names, result.projections[-1].points)
    figure = drawn(render, result)
    found = scatters(figure)
    assert len(found) == 2 * layers
    for projection, plain, missed in zip(result.projections, found[::2], found[1::2], strict=True):
        for artist, which in ((plain, ~result.wrong), (missed, result.wrong)):
            at = {tuple(p): tuple(c[:3]) for p, c in zip(artist.get_offsets(), artist.get_facecolors(), strict=True)}
            expected = dict(
                zip(map(tuple, projection.points[which]), map(tuple, groups.of(result.groups)[which]), strict=True)
            )
            assert at == expected
        assert missed.get_paths()[0].vertices.shape != plain.get_paths()[0].vertices.shape  # a cross, not a dot


def test_up_to_24_classes_have_colours_of_their_own() -> None:
    for classes in (2, 10, 24):
        result = made(classes, 50 * classes)
        groups = grouping.grouped(result.groups, result.names, result.projections[-1].points)
        assert len({tuple(colour) for colour in groups.colours}) == classes and not groups.many
    assert len(set(grouping.PALETTE)) == 24


@pytest.mark.parametrize("classes", [3, 10, 24])
def test_few_classes_are_all_in_the_legend_with_their_numbers(classes: int) -> None:
    result = made(classes, 60 * classes)
    said = words(drawn(render, result))
    assert sum("class " in text and "," in text for text in said) >= classes
    for count in np.unique(result.groups, return_counts=True)[1]:
        assert f"{count:,}" in said


@pytest.mark.parametrize("classes", [100, 1000])
def test_many_classes_are_a_bar_with_some_names_none_over_another(classes: int) -> None:
    result = made(classes, 5 * classes)
    figure = drawn(render, result)
    figure.canvas.draw()
    present = len(np.unique(result.groups))
    assert any(f"{present:,}, by where they lie" in text for text in words(figure))
    legend = [t for t in figure.texts if t.get_text().startswith("class ")]
    boxes = [t.get_window_extent() for t in (*legend, *(t for axes in figure.axes for t in axes.texts))]
    assert 15 < len(legend) < 40
    for n, box in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        for other in boxes[n + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 1 or down <= 3, "names cover each other"


def test_nothing_stands_beyond_the_page() -> None:
    for result in (made(10, 200, 1), made(24, 300, 7), made(100, 900, 2, 3), made(3, 60, 1, 3, method="pca")):
        figure = drawn(render, result)
        figure.canvas.draw()
        for text in (*figure.texts, *(t for axes in figure.axes for t in axes.texts)):
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert box.y0 >= 0 and box.y1 <= figure.bbox.y1 + 1, text.get_text()


def test_captions_give_the_figures() -> None:
    result = made(10, 200)
    said = words(drawn(render, result))
    measured = result.projections[0].quality
    assert f"{measured.knn:.1%}" in said and f"{measured.trustworthiness:.3f}" in said
    assert f"{measured.silhouette:.3f}".replace("-", "−") in said
    assert any(f"misclassified: {result.wrong.sum()} of 200" in text for text in said)


def test_without_labels_nothing_is_called_wrong() -> None:
    result = made(10, 200, labelled=False)
    said = words(drawn(render, result))
    assert not any("misclassified" in text for text in said)
    assert any("coloured by predicted class" in text for text in said)


def test_samples_are_named_where_there_are_no_classes() -> None:
    plain = made(3, 20, labelled=False)
    result = replace(plain, groups=np.full(20, -1), predictions=np.full(20, -1), by="")
    said = words(drawn(render, result))
    assert sum(text in {str(n) for n in range(20)} for text in said) > 5
    assert any("no classes known" in text for text in said)


def test_what_is_the_same_for_all_samples_is_said_to_be() -> None:
    result = made(3, 30)
    still = np.zeros((30, 2), np.float32)
    one = replace(result.projections[0], points=still, anchors=(), quality=quality(still, still, result.labels, seed=0))
    assert "the same for all samples" in words(drawn(render, replace(result, projections=(one,))))


def test_thumbnails_keep_their_pixels_and_stand_in_the_cells_of_their_points() -> None:
    result = made(3, 60)
    points = result.projections[0].points
    chosen = spread(points, CELLS)
    pictures = {int(n): np.full((48, 30, 3), n, np.uint8) for n in chosen}
    figure = drawn(render, replace(result, thumbnails={result.projections[0].layer: pictures}))
    images = [image for axes in figure.axes for image in axes.images]
    assert len(images) == len(chosen)
    cell = np.ptp(points, axis=0).max() / CELLS
    for image in images:
        left, right, bottom, top = image.get_extent()
        sample = int(np.asarray(image.get_array())[0, 0, 0])
        middle = np.array([(left + right) / 2, (bottom + top) / 2])
        assert np.abs(middle - points[sample]).max() <= cell / 2 * 1.001
        assert (right - left) / (top - bottom) == pytest.approx(30 / 48)


def test_a_box_is_seen_with_near_things_larger_and_right_angles_right() -> None:
    view = cube.View(0, 0)
    flat, away = view.see(np.array([[0, -1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]], float))
    np.testing.assert_allclose(flat[:2], 0, atol=1e-12)
    assert away[0] == -1 and away[1] == 1
    np.testing.assert_allclose(flat[2:], [[1, 0], [0, 1]], atol=1e-12)
    near, far = cube.shrunk(1.0, np.array([-1.0, 1.0]))
    assert near > far
    pale = cube.paled(np.zeros((2, 3)), np.array([-1.0, 1.0]))
    assert (pale[0] < pale[1]).all()


def test_nearer_points_are_drawn_over_farther_ones() -> None:
    result = made(3, 100, 1, 3)
    view = cube.VIEWS[0]
    flat, away = view.see(cube.boxed(result.projections[0].points))
    depth = {tuple(p): d for p, d in zip(flat, away, strict=True)}
    drawn_at = [depth[tuple(p)] for p in scatters(drawn(render, result))[0].get_offsets()]
    assert drawn_at == sorted(drawn_at, reverse=True)


def test_many_points_are_pixels_in_a_vector_file(tmp_path: Path) -> None:
    save(drawn(render, made(10, 6000)), tmp_path / "many.svg")
    save(drawn(render, made(10, 100)), tmp_path / "few.svg")
    assert (tmp_path / "many.svg").stat().st_size < 1_500_000
    assert "<image" in (tmp_path / "many.svg").read_text()
    assert "<image" not in (tmp_path / "few.svg").read_text()


def test_a_picture_is_written_and_not_blank(tmp_path: Path) -> None:
    figure = drawn(render, made(10, 500, 2))
    save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        seen = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(seen, pixels(figure))
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 100
