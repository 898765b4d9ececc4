"""Which values a method's parameters may take: the checks that several methods share."""

from __future__ import annotations


def one_of(name: str, value: str, *allowed: str) -> None:
    """Refuse a word that isn't among the allowed ones.

    Raises
    ------
    ValueError
    """
    if value not in allowed:
        listed = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
        raise ValueError(f"{name} is {listed}, got {value!r}")


def score_kind(value: str) -> None:
    """Refuse a score that is neither ``logit`` nor ``probability``.

    Raises
    ------
    ValueError
    """
    one_of("score", value, "logit", "probability")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`, or NaN.

    Raises
    ------
    ValueError
    """
    if not value >= least:
        raise ValueError(f"{name} is at least {least:g}, got {value:g}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside the open interval (low, high), or NaN.

    Raises
    ------
    ValueError
    """
    if not low < value < high:
        raise ValueError(f"{name} lies between {low:g} and {high:g}, got {value:g}")
