from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from onnx_inspect import discover
from onnx_inspect.errors import InputError
from onnx_inspect.inputs.files import READERS, load
from onnx_inspect.inputs.readers import image, npy, npz, pb

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (21, 34, 3), np.uint8)


def saved(path: Path, mode: str = "RGB", **options) -> Path:
    Image.fromarray(PIXELS).convert(mode).save(path, **options)
    return path


def read(path: Path):
    (picture,) = image.read(path).values()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    return picture


def test_every_reader_is_found_by_its_file_name():
    assert discover.names(READERS) == ["image", "npy", "npz", "pb"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF", ".webp", ".gif", ".jpg", ".jpeg"])
def test_each_picture_format_gives_its_pixels(tmp_path, suffix):
    flat = np.zeros((24, 32, 3), np.uint8)
    flat[:, 16:] = (250, 120, 40)
    path = tmp_path / f"picture{suffix}"
    exact = {".webp": {"lossless": True}, ".jpg": {"subsampling": 0}, ".jpeg": {"subsampling": 0}}
    Image.fromarray(flat).save(path, **exact.get(suffix, {}))
    (picture,) = load(path).arrays.values()
    tolerance = 2 if suffix.startswith(".j") else 0  # flat halves on a block border: JPEG loses the colours' rounding
    assert np.abs(picture.astype(int) - flat).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(tmp_path, orientation):
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read(path), upright(PIXELS))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    half = Image.fromarray(PIXELS).convert(mode)
    half.putalpha(64)
    half.save(tmp_path / "half.png")
    opaque = np.asarray(Image.fromarray(PIXELS).convert(mode).convert("RGB"))
    expected = 255 - (255 - opaque.astype(float)) * 64 / 255
    assert np.abs(read(tmp_path / "half.png") - expected).max() <= 1


def test_a_transparent_palette_entry_becomes_white(tmp_path):
    picture = Image.new("P", (4, 4))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 1), 1)
    picture.save(tmp_path / "p.png", transparency=0)
    found = read(tmp_path / "p.png")
    assert tuple(found[0, 0]) == (255, 255, 255) and tuple(found[1, 1]) == (200, 100, 50)


def test_a_phones_jpeg_of_several_pictures_is_read(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "phone.jpg")[0, 0].argmax() == 0


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "YCbCr"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    path = saved(tmp_path / "picture.tif", mode)
    np.testing.assert_array_equal(read(path), np.asarray(Image.fromarray(PIXELS).convert(mode).convert("RGB")))


def test_grey_becomes_three_equal_channels(tmp_path):
    picture = read(saved(tmp_path / "grey.png", "L"))
    np.testing.assert_array_equal(picture, np.repeat(picture[..., :1], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_not_cut(tmp_path, suffix):
    deep = np.linspace(0, 65535, 21 * 34).reshape(21, 34).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep{suffix}")
    expected = np.rint(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(read(tmp_path / f"deep{suffix}")[..., 1], expected)


def test_sixteen_bit_colour_keeps_eight_bits_a_channel(tmp_path):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS.astype(np.uint16) * 257)
    header = struct.pack(">IIBBBBB", 34, 21, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    np.testing.assert_array_equal(read(tmp_path / "deep.png"), PIXELS)


def test_real_numbers_are_sent_to_npy(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(tmp_path / "i.tif")
    for name, message in (("f.tif", "real numbers"), ("i.tif", "32-bit numbers")):
        with pytest.raises(InputError, match=f"{message}.*npy"):
            image.read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_the_first_frame_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"film{suffix}", save_all=True, append_images=frames[1:])
    assert read(tmp_path / f"film{suffix}")[0, 0].argmax() == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
def test_a_truncated_picture_is_an_error(tmp_path, suffix):
    data = saved(tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=f"cut{suffix}"):
        image.read(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".gif"])
def test_damaged_bytes_give_a_picture_or_one_line(tmp_path, suffix):
    data = np.frombuffer(saved(tmp_path / f"whole{suffix}").read_bytes(), np.uint8)
    path = tmp_path / f"damaged{suffix}"
    outcomes = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = data.copy()
        damaged[rng.integers(0, min(len(data), 200), 5)] = rng.integers(0, 256, 5)
        path.write_bytes(damaged.tobytes())
        try:
            outcomes.add(read(path).dtype)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            outcomes.add("error")
    assert "error" in outcomes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture, or it is damaged"),
        (b"hello", r"not a picture, or it is damaged \(5 bytes\)"),
    ],
)
def test_what_is_no_picture_is_recognised(tmp_path, content, message):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=message):
        image.read(tmp_path / "x.png")


def test_a_decompression_bomb_is_refused_and_a_large_photograph_is_not(tmp_path, monkeypatch):
    path = saved(tmp_path / "x.png")  # 714 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow warns above it, and fails above its double
    assert read(path).shape == (21, 34, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(InputError, match="million pixels"):
        image.read(path)


@pytest.mark.parametrize("reader", [image, npy, npz, pb])
def test_a_missing_file_is_an_error_of_each_reader(tmp_path, reader):
    with pytest.raises(InputError, match=r"no such file|No such file"):
        reader.read(tmp_path / f"gone{reader.SUFFIXES[0]}")


def test_npy_gives_the_array_and_refuses_objects_and_garbage(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS[:, ::2])
    np.testing.assert_array_equal(npy.read(tmp_path / "a.npy")[""], PIXELS[:, ::2])
    np.save(tmp_path / "o.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "g.npy").write_bytes(b"garbage")
    (tmp_path / "t.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:200])
    (tmp_path / "e.npy").write_bytes(b"")
    for name in "ogte":
        with pytest.raises(InputError, match=r"not a readable .npy array"):
            npy.read(tmp_path / f"{name}.npy")


def test_npz_gives_every_array_whatever_its_name(tmp_path):
    arrays = {"a/b:0": PIXELS, "file": np.arange(3.0), "": np.int64(4)}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(array))
            archive.writestr(f"{name}.npy", stream.getvalue())
    found = npz.read(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_npz_refuses_what_is_not_one(tmp_path):
    np.savez_compressed(tmp_path / "whole.npz", a=PIXELS)
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    spoiled = bytearray(data)
    spoiled[100:140] = bytes(40)
    (tmp_path / "spoiled.npz").write_bytes(spoiled)
    (tmp_path / "garbage.npz").write_bytes(b"garbage")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    np.savez(tmp_path / "empty.npz")
    for name in ("cut", "spoiled", "garbage", "objects", "empty"):
        with pytest.raises(InputError, match=name):
            npz.read(tmp_path / f"{name}.npz")


def test_pb_gives_the_tensor_under_its_name(tmp_path):
    values = RNG.normal(size=(2, 3)).astype(np.float16)
    (tmp_path / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(values, "x:0").SerializeToString())
    ((name, found),) = pb.read(tmp_path / "input_0.pb").items()
    assert name == "x:0" and found.dtype == np.float16
    np.testing.assert_array_equal(found, values)


def test_pb_refuses_what_is_not_a_tensor(tmp_path):
    short = onnx.TensorProto(dims=[5], data_type=onnx.TensorProto.FLOAT, raw_data=b"1234")
    for name, data in {"garbage": b"\xff\xff\xff", "empty": b"", "short": short.SerializeToString()}.items():
        (tmp_path / f"{name}.pb").write_bytes(data)
        with pytest.raises(InputError, match=name):
            pb.read(tmp_path / f"{name}.pb")
