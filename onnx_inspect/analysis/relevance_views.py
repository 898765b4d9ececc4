"""How relevance through attention becomes what is drawn: a map over the picture, or the text on coloured ground."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from onnx_inspect.analysis import attention_query as queries
from onnx_inspect.analysis.attention_views import blank, seen_of
from onnx_inspect.analysis.saliency import UNSEEN, CamMap, CamPanel, prepare
from onnx_inspect.analysis.token_saliency import STRONGEST, TokenMap, TokenPanel
from onnx_inspect.cam._probe import is_flat
from onnx_inspect.heads import Relevance
from onnx_inspect.inputs.batch import Batch

NAME = "grad-rollout"
FLAT = "no token's attention moves the score"


def over_picture(found: Relevance, index: int, batch: Batch, query: queries.Query | None) -> CamPanel:
    """What the patches decide of a target, laid over one sample's picture."""
    original, placement = batch.originals[index], batch.placements[index]
    chosen, words = queries.weights(query or queries.usual(found.over), found.over, placement, None)
    values = found.over.on_grid(queries.looks_of_rollout(found.values, index, chosen)[0])
    size = None if original is None else (original.shape[0], original.shape[1])
    shown, problem = prepare(values, placement=placement, size=size)
    score = float(found.scores[index])
    one = CamMap(
        method=NAME,
        layer=f"{len(found.layers)} layers, seen from {words}",
        target=found.targets[index],
        score=score if math.isfinite(score) else None,
        values=shown,
        problem=FLAT if problem else "",
    )
    source = Path(batch.sources[index])
    return CamPanel(
        source=source.stem if source.suffix else source.name,
        maps=(one,),
        picture=original if original is not None else blank(found.over),
        notes=(UNSEEN,) if original is not None and np.isnan(shown).any() else (),
        unit="relative relevance",
    )


def over_text(found: Relevance, index: int, batch: Batch, query: queries.Query | None) -> TokenPanel | None:
    """The text, each token on a ground as strong as what it decides of a target; None where the tokens are no text."""
    seen = seen_of(batch, found.over)
    if batch.text is None or seen is None:
        return None
    tokens = batch.text.tokens[index]
    chosen, words = queries.weights(query or queries.usual(found.over), found.over, None, seen[index])
    values = queries.looks_of_rollout(found.values, index, chosen)[0, 0][tokens.shown]
    written = [tokens.pieces[i] for i in tokens.shown]
    strongest = [int(i) for i in np.argsort(-values, kind="stable")[:STRONGEST]]
    score = float(found.scores[index])
    flat = is_flat(values)
    one = TokenMap(
        method=NAME,
        target=found.targets[index],
        score=score if math.isfinite(score) else None,
        values=values,
        pro=() if flat else tuple((written[i], float(values[i])) for i in strongest),
        problem=FLAT if flat else "",
    )
    return TokenPanel(
        source=batch.sources[index],
        pieces=tuple(tokens.written[i] for i in tokens.shown),
        glued=tuple(tokens.glued[i] for i in tokens.shown),
        asked=(True,) * len(tokens.shown),
        maps=(one,),
        notes=(f"attention times its gradient through {len(found.layers)} layers, seen from {words}",),
        signed=False,
    )
