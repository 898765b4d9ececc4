"""Picture files: PNG, JPEG, WebP, BMP, GIF, TIFF."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_inspect.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PICTURES = True
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # nothing that starts other programs, as EPS does


def read(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read one picture, upright, as 8-bit RGB.

    The first frame of an animation counts. EXIF orientation is applied, transparency is laid over white, grey becomes
    three equal channels, 16 bits become 8 by ``round(x / 257)``. Colour profiles are not applied.

    Returns
    -------
    dict
        One entry under "": ndarray, (H, W, 3), uint8.

    Raises
    ------
    InputError
        Missing, empty, truncated, broken, too large, or not a picture.
    """
    return {"": np.asarray(_rgb(_upright(path), path))}


def _upright(path: Path) -> Image.Image:
    """Decode the first frame and turn it as its EXIF says."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("ignore")  # Pillow warns of large and of slightly odd files, and reads them well
            with Image.open(stream, formats=FORMATS) as image:
                image.load()
                return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise InputError(_unknown(path)) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{path} has more than {limit / 1e6:.0f} million pixels: make it smaller first") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over in broken bytes
        raise InputError(f"{path} is a broken picture: {error or type(error).__name__}") from error


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):
        image = _eight_bits(image, path)
    if image.mode == "F":
        raise InputError(f"{path} holds real numbers, not 8 or 16 bits: save it as .npy to feed it as it is")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{path} holds 32-bit numbers ({values.min()}..{values.max()}): save it as .npy to feed it")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _unknown(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(64)
    if not size:
        return f"{path} is empty (0 bytes): copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the picture itself: run 'git lfs pull' to fetch it"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return f"{path} is an HTML page, not a picture: the download link led to a web page"
    return f"{path} is not a picture, or it is damaged ({size:,} bytes); these are read: {', '.join(SUFFIXES)}"
