"""Projections of many features to two or three: one file each, `fit(points, params) -> (N, 2 or 3)`."""
