"""Which fonts there are for our type, what they can show, and how wide a line of it is."""

from __future__ import annotations

import functools
from typing import Literal

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties

Weight = Literal["normal", "bold"]
WIDE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "SimHei")


@functools.cache
def families() -> list[str]:
    """DejaVu Sans, which matplotlib brings along, then what this machine has for Chinese, Japanese and Korean."""
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in WIDE_FONTS if name in installed)]


@functools.cache
def characters() -> frozenset[int]:
    paths = [font_manager.findfont(FontProperties(family=[name])) for name in families()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


@functools.lru_cache(maxsize=4096)
def ems(text: str, weight: Weight) -> float:
    """Width of a line in ems."""
    font = font_manager.get_font(font_manager.findfont(FontProperties(family=families(), weight=weight)))
    font.set_size(100, 72)
    font.set_text(text)
    width, _ = font.get_width_height()
    return float(width) / 64 / 100
