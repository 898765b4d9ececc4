"""How a layer's maps or tokens become one vector for each sample."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import LayerError
from onnx_inspect.graph.spatial import Spatial

Pool = Literal["mean", "max", "flatten", "cls", "none"]
POOLS: tuple[Pool, ...] = get_args(Pool)


def pool(
    values: NDArray[Any], how: Pool, form: Spatial | None, *, mask: NDArray[Any] | None = None, layer: str = ""
) -> NDArray[Any]:
    """Make one vector of each sample's activations.

    Parameters
    ----------
    values : ndarray, (N, ...)
    how : {'mean', 'max', 'flatten', 'cls', 'none'}
        Mean or largest value over all positions of a map, or over the tokens that lie on one; all values in a row; the
        class token; or the values as they are. Vectors stay vectors.
    form : Spatial or None
        How the axes lie. Where nobody knows it, (N, T, D) are taken for tokens, more axes for channels first.
    mask : ndarray, (N, T), optional
        Which tokens count (not 0), where some only fill up.
    layer : str
        Its name, for messages.

    Returns
    -------
    ndarray, (N, D), float32
        Of `mean` in float32; NaN where a value is NaN. With ``none`` the values themselves, in their own type.

    Raises
    ------
    LayerError
        It has no class token.
    """
    if how == "none":
        return values
    if how == "flatten" or values.ndim < 3:
        if how == "cls":
            raise LayerError(f"layer {layer!r} holds vectors, which have no class token: pool by mean or flatten")
        return np.asarray(values.reshape(len(values), -1), np.float32)
    if how == "cls":
        return _class_token(values, form, layer)
    if form is not None and form.form == "tokens":
        values = values[:, form.prefix : form.prefix + form.cells]
        return _over(values, (1,), how)
    if form is not None and form.form == "channels-last":
        return _over(values, tuple(range(1, values.ndim - 1)), how)
    if form is None and values.ndim == 3:
        return _masked(values, how, mask)
    return _over(values, tuple(range(2, values.ndim)), how)


def _class_token(values: NDArray[Any], form: Spatial | None, layer: str) -> NDArray[np.float32]:
    tokens = values.ndim == 3 and (form is None or (form.form == "tokens" and form.prefix > 0))
    if not tokens:
        what = "maps" if form is None or form.form != "tokens" else "tokens, none of which stands before the map's"
        raise LayerError(f"layer {layer!r} holds {what}, so it has no class token: pool by mean, max or flatten")
    return np.asarray(values[:, 0], np.float32)


def _masked(values: NDArray[Any], how: Pool, mask: NDArray[Any] | None) -> NDArray[np.float32]:
    """Pool tokens (N, T, D), leaving out those that only fill up."""
    if mask is None or mask.shape != values.shape[:2]:
        return _over(values, (1,), how)
    counts = mask.astype(bool)[..., None]  # (N, T, 1)
    if how == "max":
        return np.asarray(np.where(counts, values, -np.inf).max(axis=1), np.float32)
    total = np.where(counts, values, 0).sum(axis=1, dtype=np.float32)
    return np.asarray(total / np.maximum(counts.sum(axis=1), 1), np.float32)


def _over(values: NDArray[Any], axes: tuple[int, ...], how: Pool) -> NDArray[np.float32]:
    if how == "max":
        return np.asarray(values.max(axis=axes), np.float32)
    return np.asarray(values.mean(axis=axes, dtype=np.float32))
