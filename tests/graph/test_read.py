"""Every file becomes a Model, or an error that names what it is."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_inspect.engine import Engine
from onnx_inspect.errors import ModelError
from onnx_inspect.graph.model import Model
from onnx_inspect.graph.read import parse, read

GOOD = Path(__file__).parents[2] / "fixtures" / "gap.onnx"
BIG = 5 * 2**29  # bytes, 2.5 GB


def archive(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as packed:
            packed.writestr("model.onnx", GOOD.read_bytes())
    else:
        with tarfile.open(fileobj=stream, mode="w") as tape:
            tape.add(GOOD, "model.onnx")
    return stream.getvalue()


BROKEN = {
    "empty": (b"", "is empty"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 97\n",
        "Git LFS pointer.*git lfs",
    ),
    "HTML": (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "HTML page"),
    "HTML with a byte order mark": (b"\xef\xbb\xbf<html></html>", "HTML page"),
    "XML": (b"<?xml version='1.0'?><net/>", "XML file"),
    "zip": (archive("zip"), "zip archive"),
    "tar": (archive("tar"), "tar archive"),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip"),
    "pickle": (pickle.dumps({"weight": [1.0]}, protocol=2), "pickle.*export"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "HDF5"),
    "safetensors": (struct.pack("<Q", 14) + b'{"__meta__":{}}', "safetensors"),
    "ORT format": (b"\x20\x00\x00\x00ORTM" + bytes(16), "ORT format"),
    "TensorFlow Lite": (b"\x1c\x00\x00\x00TFL3" + bytes(16), "TensorFlow Lite"),
    "text": (b"Access to model x/y is restricted.\n", "text file.*'access to model"),
    "truncated": (GOOD.read_bytes()[:-40], "truncated"),
    "noise": (bytes(range(7, 256)) * 3, "not an ONNX model"),
    "another protobuf": (helper.make_tensor("t", 1, [1], [1.0]).SerializeToString(), "not an ONNX model"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_model_is_recognised(kind: str, tmp_path: Path) -> None:
    data, message = BROKEN[kind]
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"net.onnx.*{message}") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(GOOD.read_bytes())
    path.chmod(0)
    with pytest.raises(ModelError, match="can't be read"):
        read(path)


def test_every_truncation_is_refused_cleanly() -> None:
    data = GOOD.read_bytes()
    for length in range(0, len(data), 13):
        with pytest.raises(ModelError):
            Engine(parse(data[:length])).run({"input": np.zeros((1, 3, 12, 20), np.float32)})


def test_real_broken_files_fail_by_name(real: Path) -> None:
    expected = {
        "external_path_escapes.onnx": "points outside its folder",
        "garbage.onnx": "not an ONNX model",
        "lfs_pointer_resnet50.onnx": "Git LFS",
        "missing_external_data_resnet18.onnx": "'resnet18.onnx.data', which is missing",
        "shape_clash_bad_graph.onnx": r"contradict each other at \w+ '\w+': Incompatible[^(]*$",
        "truncated_captum.onnx": "truncated",
        "truncated_mobilenetv2.onnx": "HTML",
        "unknown_domain_noisy_relu.onnx": "custom operator MyNoisyReluDomain::NoisyRelu",
        "zero_length.onnx": "empty",
    }
    assert {p.name for p in (real / "broken").glob("*.onnx")} == set(expected)
    for name, message in expected.items():
        with pytest.raises(ModelError, match=message):
            read(real / "broken" / name)


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


FLOAT = (np.float32, ["N", 2])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Relu", "x", "a"), node("Add", "a missing", "y")], "reads 'missing', which nothing makes"),
        ([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")], "lies on a cycle"),
        ([node("Relu", "x", "y"), node("Neg", "x", "y")], "makes the tensor 'y' twice"),
        ([node("Relu", "x", "x"), node("Neg", "x", "y")], "makes the tensor 'x' twice"),
        ([node("Relu", "x", "a")], "output 'y' is made by nothing"),
        ([node("Foo", "x", "y", domain="my.own")], "custom operator my.own::Foo"),
    ],
)
def test_an_invalid_graph_is_refused(make: Callable[..., Model], nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(nodes, {"x": FLOAT}, ["y"])


def test_a_custom_operator_inside_a_branch_is_refused(make: Callable[..., Model]) -> None:
    branch = [
        helper.make_graph([node("Foo", "x", f"{b}_y", domain="my.own")], b, [], [onnx.ValueInfoProto(name=f"{b}_y")])
        for b in "te"
    ]
    flow = node("If", "c", "y", then_branch=branch[0], else_branch=branch[1])
    with pytest.raises(ModelError, match=r"custom operator my.own::Foo"):
        make([flow], {"x": FLOAT, "c": (np.bool_, [])}, ["y"])


def test_names_that_are_no_text_are_refused() -> None:
    data = GOOD.read_bytes()
    assert b"relu_node" in data
    with pytest.raises(ModelError, match="not UTF-8"):
        parse(data.replace(b"relu_node", b"relu\xff\xfeode"))


def test_nodes_in_any_order_are_sorted_and_run_alike(
    make: Callable[..., Model], fixtures: Path, some: Any, plainly: Any
) -> None:
    proto = onnx.load(fixtures / "skip.onnx")
    nodes = list(proto.graph.node)
    shuffled = [nodes[i] for i in np.random.default_rng(0).permutation(len(nodes))]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in shuffled]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    found, plain = parse(proto.SerializeToString()), read(fixtures / "skip.onnx")
    feeds = some(plain, 2)
    np.testing.assert_array_equal(plainly(found, feeds)["logits"], plainly(plain, feeds)["logits"])


def test_given_order_is_kept(fixtures: Path) -> None:
    for path in sorted(fixtures.glob("*.onnx")):
        proto = onnx.load(path, load_external_data=False)
        if not proto.functions:
            assert [n.output[0] for n in read(path).proto.graph.node] == [n.output[0] for n in proto.graph.node]


def test_nodes_without_names_get_different_ones(make: Callable[..., Model]) -> None:
    nodes = [
        node("Relu", "x", "a"),
        node("Relu", "a", "b", name="Relu_0"),
        node("Relu", "b", "c", name="Relu_0"),
        node("Relu", "c", "y"),
    ]
    names = [layer.name for layer in make(nodes, {"x": FLOAT}, ["y"]).layers]
    assert len(set(names)) == 4
    assert "Relu_0" in names


def test_initialisers_listed_as_inputs_are_no_inputs(make: Callable[..., Model], plainly: Any) -> None:
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = make(
        [node("MatMul", "x w", "y")],
        {"x": FLOAT, "w": (np.float32, [2, 3])},
        ["y"],
        {"w": weight},
        opset=8,
        ir_version=3,
    )
    assert [spec.name for spec in found.inputs] == ["x"]
    x = np.ones((4, 2), np.float32)
    np.testing.assert_allclose(Engine(found).run({"x": x})["y"], x @ weight)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 20, 21, 22, 23])
def test_opsets_are_read_and_run(make: Callable[..., Model], opset: int) -> None:
    ir_version = 3 if opset < 9 else 8 if opset < 21 else 10
    found = make(
        [node("Relu", "x", "a"), node("Flatten", "a", "y", axis=1)],
        {"x": FLOAT},
        ["y"],
        opset=opset,
        ir_version=ir_version,
    )
    assert found.opsets["ai.onnx"] == opset
    x = np.array([[-1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(Engine(found).run({"x": x})["y"], np.maximum(x, 0))


def test_an_opset_or_format_of_the_future_is_refused_by_the_run(make: Callable[..., Model]) -> None:
    for found in (
        make([node("Relu", "x", "y")], {"x": FLOAT}, ["y"], opset=99),
        make([node("Relu", "x", "y")], {"x": FLOAT}, ["y"], ir_version=99),
    ):
        with pytest.raises(ModelError, match="not a model that onnxruntime accepts"):
            Engine(found).run({"x": np.zeros((1, 2), np.float32)})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "float8_e4m3fn", "int4"])
def test_initialisers_of_any_type_are_read(make: Callable[..., Model], dtype: str) -> None:
    import ml_dtypes

    values = np.array([[1, -2, 3], [0, 4, -5]])
    stored = values.astype(np.dtype(getattr(ml_dtypes, dtype, None) or dtype))
    found = make(
        [node("Cast", "w", "c", to=TensorProto.FLOAT), node("MatMul", "x c", "y")],
        {"x": FLOAT},
        ["y"],
        {"w": stored},
        opset=21,
    )
    assert found.tensor("w").dtype in ("", dtype)
    assert str(numpy_helper.to_array(found.constants["w"]).dtype) == dtype
    x = np.eye(2, dtype=np.float32)
    np.testing.assert_array_equal(Engine(found).run({"x": x})["y"], values)


def test_missing_shapes_are_inferred_and_symbols_kept(make: Callable[..., Model]) -> None:
    found = make(
        [node("MatMul", "x w", "a"), node("Relu", "a", "y")],
        {"x": ("float32", ["N", "T", 4])},
        ["y"],
        {"w": np.zeros((4, 7), np.float32)},
    )
    assert found.tensor("a").shape == ("N", "T", 7)
    assert found.outputs[0].shape == ("N", "T", 7)
    assert found.outputs[0].dtype == "float32"


def test_a_runtime_operator_without_a_rule_leaves_shapes_unknown(make: Callable[..., Model]) -> None:
    found = make(
        [node("Gelu", "x", "a", domain="com.microsoft"), node("Relu", "a", "y")],
        {"x": FLOAT},
        ["y"],
        opsets=[helper.make_opsetid("com.microsoft", 1)],
    )
    assert found.outputs[0].shape is None
    assert Engine(found).run({"x": np.ones((3, 2), np.float32)})["y"].shape == (3, 2)


def test_contradicting_shapes_name_the_first_problem(make: Callable[..., Model]) -> None:
    nodes = [node("MatMul", "x w", "a", name="first"), node("Add", "a v", "y", name="second")]
    with pytest.raises(ModelError, match=r"contradict each other at MatMul 'first': Incompatible dimensions[^(]*$"):
        make(nodes, {"x": FLOAT}, ["y"], {"w": np.zeros((3, 4), np.float32), "v": np.zeros(5, np.float32)})


# External data


def external(
    folder: Path, *, location: str = "weights.bin", entries: dict[str, Any] | None = None, name: str = "net.onnx"
) -> Path:
    """A model y = x @ w with w in another file."""
    weight = np.arange(8, dtype=np.float32).reshape(2, 4)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": 16, "length": 32, **(entries or {})}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", d]) for n, d in (("x", 2), ("y", 4)))
    graph = helper.make_graph([node("MatMul", "x w", "y")], "external", [x], [y], [tensor])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(proto.SerializeToString())
    if not (folder / "weights.bin").exists():
        (folder / "weights.bin").write_bytes(bytes(16) + weight.tobytes())
    return folder / name


X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
Y = X @ np.arange(8, dtype=np.float32).reshape(2, 4)


def test_external_data_stays_in_its_file_and_runs(tmp_path: Path) -> None:
    found = read(external(tmp_path))
    assert found.constants["w"].data_location == TensorProto.EXTERNAL
    np.testing.assert_allclose(Engine(found).run({"x": X})["y"], Y)


def test_external_data_is_found_whatever_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    found = read("models/net.onnx")
    monkeypatch.chdir("/")
    np.testing.assert_allclose(Engine(found).run({"x": X})["y"], Y)


def test_a_file_of_the_same_name_in_the_working_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = external(tmp_path / "models").read_bytes()
    (tmp_path / "weights.bin").write_bytes(bytes(48))
    monkeypatch.chdir(tmp_path)
    found = parse(data, folder=tmp_path / "models")
    np.testing.assert_allclose(Engine(found).run({"x": X})["y"], Y)


def test_external_data_of_bytes_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not read from a folder"):
        parse(external(tmp_path).read_bytes())


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin", "C:\\weights.bin", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(ModelError, match=r"points outside its folder.*refused"):
        read(external(tmp_path / "models", location=location))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 20}, "too short for weight 'w': it is truncated"),
        ({"offset": 20, "length": None}, "too short"),
        ({"length": 16}, "needs 32 bytes of weights.bin, its entry says 16"),
        ({"offset": -4}, "too short"),
        ({"offset": "many"}, "broken reference"),
    ],
)
def test_external_data_that_does_not_fit_is_refused(tmp_path: Path, entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(external(tmp_path, entries=entries))


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights.bin', which is missing: put it beside the model"):
        read(path)


def test_a_cache_of_links_works(tmp_path: Path) -> None:
    """snapshots/REVISION/net.onnx -> blobs/HASH, and its data likewise, as Hugging Face keeps them."""
    snapshot, blobs = tmp_path / "snapshots" / "a1b2", tmp_path / "blobs"
    external(snapshot)
    blobs.mkdir()
    for name in ("net.onnx", "weights.bin"):
        (snapshot / name).rename(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"hash-of-{name}")
    found = read(snapshot / "net.onnx")
    for exact in (True, False):
        np.testing.assert_allclose(Engine(found, exact=exact).run({"x": X})["y"], Y)


def test_a_link_to_data_in_the_same_folder_works(tmp_path: Path) -> None:
    path = external(tmp_path, location="linked.bin")
    (tmp_path / "linked.bin").symlink_to("weights.bin")
    np.testing.assert_allclose(Engine(read(path)).run({"x": X})["y"], Y)


def test_a_link_to_a_model_finds_the_data_beside_the_model(tmp_path: Path) -> None:
    external(tmp_path / "models")
    (tmp_path / "link.onnx").symlink_to("models/net.onnx")
    np.testing.assert_allclose(Engine(read(tmp_path / "link.onnx")).run({"x": X})["y"], Y)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    path = external(tmp_path / "models", location="weights.bin")
    (tmp_path / "models" / "weights.bin").unlink()
    (tmp_path / "models" / "weights.bin").symlink_to(secret)
    with pytest.raises(ModelError, match=r"is a link.*refused"):
        read(path)


def test_a_constant_node_with_data_outside_is_refused(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    proto = helper.make_model(helper.make_graph([helper.make_node("Constant", [], ["y"], value=tensor)], "g", [], [y]))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="points outside"):
        read(tmp_path / "net.onnx")


def test_small_shapes_in_another_file_are_brought_in(tmp_path: Path) -> None:
    target = np.array([0, 3, 4], np.int64)
    reshape = helper.make_graph(
        [node("Reshape", "x t", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(target, "t")],
    )
    proto = helper.make_model(reshape, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(proto, tmp_path / "net.onnx", save_as_external_data=True, location="t.bin", size_threshold=0)
    assert (tmp_path / "t.bin").stat().st_size >= target.nbytes
    assert read(tmp_path / "net.onnx").outputs[0].shape == ("N", 3, 4)


def test_a_model_of_more_than_2_gb_is_read_and_run_without_loading_it(tmp_path: Path) -> None:
    """A file full of holes: 2.5 GB of which only two weights are ever asked for."""
    rows = BIG // 4 // 1024
    path = tmp_path / "big.onnx"
    weights = []
    for name, shape, offset in (("table", [rows, 1024], 0), ("w", [1024, 2], BIG)):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "big.data"), ("offset", offset), ("length", int(np.prod(shape)) * 4)):
            tensor.external_data.add(key=key, value=str(value))
        weights.append(tensor)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(
        [node("Gather", "table ids", "row"), node("MatMul", "row w", "y")], "big", [ids], [y], weights
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )
    second = np.arange(2048, dtype=np.float32).reshape(1024, 2)
    with (tmp_path / "big.data").open("wb") as stream:
        stream.truncate(BIG)
        stream.seek((rows - 1) * 4096)
        stream.write(np.ones(1024, np.float32).tobytes())
        stream.write(second.tobytes())
    before = _peak()
    found = read(path)
    assert found.tensor("y").shape == ("N", 2)
    values = Engine(found, exact=True).run({"ids": np.array([0, rows - 1])})["y"]
    np.testing.assert_allclose(values, [[0, 0], second.sum(axis=0)])
    assert _peak() - before < 2**30, "a model larger than the memory that it needs was loaded whole"


def _peak() -> int:
    """Bytes of memory that this process has taken at most, without mapped files."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is measured where there is /proc")
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024
