"""How an input falls into superpixels: connected regions of similar colour, numbered from 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.cam._probe import Index, Maps

ROUNDS = 5  # of moving the centres: later ones move hardly any pixel
SMOOTH = 1.0  # pixels of blur before colours are compared, against noise


def grid(size: tuple[int, ...], count: int) -> Index:
    """Label the pixels (H, W), or (D, H, W), by about `count` equal rectangles, as square as they can be."""
    return rectangles(size, _lattice(size, count))


def rectangles(size: tuple[int, ...], shape: tuple[int, ...]) -> Index:
    """Label the pixels (H, W) by equal rectangles, `shape` of them along each side, row by row."""
    sides = (np.arange(side) * cells // side for side, cells in zip(size, shape, strict=True))
    return np.ravel_multi_index(tuple(np.meshgrid(*sides, indexing="ij")), shape)


def slic(picture: Maps, count: int, compactness: float) -> Index:
    """Label the pixels (H, W) by about `count` superpixels.

    Simple linear iterative clustering (Achanta et al. 2012): k-means of colour and place from a regular lattice, each
    centre reaching only its own surroundings; then every label keeps its largest connected piece, and the others go to
    the nearest label. Colours are in units of their standard deviation over the picture.

    Parameters
    ----------
    picture : ndarray, (C, H, W), float32
    compactness : float
        Weight of a lattice step against one standard deviation of colour: larger gives squarer superpixels.

    Returns
    -------
    ndarray, (H, W), int
        0 to M - 1, every label present; the lattice itself where the picture is constant.
    """
    from scipy.ndimage import gaussian_filter

    size = picture.shape[1:]
    labels = grid((size[0], size[1]), count)
    spread = float(picture.std(dtype=np.float64))
    if spread <= 1e-6 * float(np.abs(picture).max(initial=0.0)) or not np.isfinite(spread):
        return labels
    colours = gaussian_filter(picture.astype(np.float64), (0, SMOOTH, SMOOTH), mode="nearest") / spread
    step = np.sqrt(size[0] * size[1] / (labels.max() + 1))
    places = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")) * (compactness / step)
    features = np.concatenate([colours, places])  # (C + 2, H, W)
    reach = compactness  # of a centre, in the places' unit: one lattice step to each side
    for _ in range(ROUNDS):
        labels = _nearest(features, _centres(features, labels), labels, reach)
    return _connected(labels)


def _lattice(size: tuple[int, ...], count: int) -> tuple[int, ...]:
    """How many cells along each side, of about `count` that are near-square."""
    if len(size) == 1:
        return (max(1, min(count, size[0])),)
    edge = float(np.prod(size[1:])) / size[0] ** (len(size) - 1)  # of the other sides, in those of the first
    rows = int(np.clip(round((count / edge) ** (1 / len(size))), 1, min(size[0], count)))
    return rows, *_lattice(size[1:], round(count / rows))


def _centres(features: NDArray[np.float64], labels: Index) -> NDArray[np.float64]:
    """Mean features of each label, (M, C + 2); NaN for a label that has lost all its pixels."""
    flat = labels.ravel()
    sizes = np.bincount(flat)
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(flat, channel.ravel()) / sizes for channel in features], axis=1)


def _nearest(features: NDArray[np.float64], centres: NDArray[np.float64], labels: Index, reach: float) -> Index:
    """Label of the nearest centre within reach of each pixel; its former label where none reaches it."""
    best, found = np.full(labels.shape, np.inf), labels.copy()
    rows, columns = features[-2, :, 0], features[-1, 0, :]
    for label, centre in enumerate(centres):
        if np.isnan(centre[0]):
            continue
        top, bottom = np.searchsorted(rows, [centre[-2] - reach, centre[-2] + reach])
        left, right = np.searchsorted(columns, [centre[-1] - reach, centre[-1] + reach])
        here = np.s_[top:bottom, left:right]
        distance = ((features[:, here[0], here[1]] - centre[:, None, None]) ** 2).sum(axis=0)
        closer = distance < best[here]
        best[here][closer] = distance[closer]
        found[here][closer] = label
    return found


def _connected(labels: Index) -> Index:
    """Keep each label's largest connected piece, give the rest to the nearest kept pixel, and number from 0."""
    from scipy.ndimage import distance_transform_edt, label

    kept = np.zeros(labels.shape, bool)
    for value in np.unique(labels):
        pieces, number = label(labels == value)
        kept |= pieces == 1 if number == 1 else pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    nearest = distance_transform_edt(~kept, return_distances=False, return_indices=True)
    whole = labels[tuple(nearest)]
    return np.unique(whole, return_inverse=True)[1].reshape(labels.shape)
