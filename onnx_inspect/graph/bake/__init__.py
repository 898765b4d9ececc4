"""How an explanation becomes part of a model: each method's formula written down in standard operators.

A method is a file of this folder that holds a docstring with its formula, ``NEEDS`` (what it is given: any of
``index``, ``gradient``, ``weights``, ``tail``) and ``write(draft) -> str``, which adds nodes by the draft and returns
the tensor (N, cells) that holds the map. Being in this folder is all that it takes; names are those of the ``cam``
methods.
"""

from __future__ import annotations
