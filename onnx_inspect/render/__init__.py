"""How results are drawn: one file per kind, each with `draw(result, figure)`; the only package that uses matplotlib."""
