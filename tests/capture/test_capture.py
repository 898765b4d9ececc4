"""What a capture holds is what the model gives, whatever interrupted it and however it was cut into portions."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from onnx_inspect import capture
from onnx_inspect.capture.local import blocks, into_memory, write
from onnx_inspect.capture.setup import Job
from onnx_inspect.errors import InputError, LayerError, OutputError
from onnx_inspect.inputs.preprocess import Preprocess

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "capture.py"
Digits = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Plan = Callable[..., Job]
Plainly = Callable[..., dict[str, NDArray[Any]]]


@pytest.fixture(scope="module")
def data(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "some.npz"
    np.savez(path, images=digits[0][:150], labels=digits[1][:150])
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fed(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Digits as the network takes them, by Pillow and the formula it was trained with."""
    large = [np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BILINEAR), np.float32) for p in pictures]
    return np.repeat(np.stack(large)[:, None] / np.float32(127.5) - 1, 3, axis=1)


def test_what_is_captured_is_what_the_model_gives(
    digits: Digits, data: Path, fixtures: Path, plan_of: Plan, plainly: Plainly, tmp_path: Path
) -> None:
    found = write(plan_of(data, ["Conv:0", "Relu:-1"], pool="none", shard=64), tmp_path / "c").captured
    from onnx_inspect.graph.read import read
    from onnx_inspect.graph.surgery import expose

    net = read(fixtures / "digits_convnet.onnx")
    names = [net.layer("Conv:0").output.name, net.layer("Relu:-1").output.name, "logits"]
    values = plainly(expose(net, names[:2]), {"input": fed(digits[0][:150])}, names)
    for layer, name in zip(found.layers, names, strict=False):
        # float32 sums in another order: fused and in batches here, plainly there
        np.testing.assert_allclose(np.asarray(found.array(layer)), values[name], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.predictions, values["logits"].argmax(axis=1))
    np.testing.assert_array_equal(found.labels, digits[1][:150])
    assert found.sources[3] == f"{data}[3]" and len(found) == 150 and found.comparable
    assert found.accuracy == (values["logits"].argmax(axis=1) == digits[1][:150]).mean()


@pytest.mark.parametrize(
    ("pool", "layer", "expected"),
    [
        ("mean", "Conv:0", lambda a: a.mean(axis=(2, 3))),
        ("max", "Conv:0", lambda a: a.max(axis=(2, 3))),
        ("flatten", "Conv:0", lambda a: a.reshape(len(a), -1)),
        ("mean", "Relu:-1", lambda a: a),
    ],
)
def test_pooling_is_what_it_says(data: Path, plan_of: Plan, pool: str, layer: str, expected: Any) -> None:
    whole = into_memory(plan_of(data, [layer], pool="none"))
    pooled = into_memory(plan_of(data, [layer], pool=pool))
    name = whole.layers[0]
    # float32 means in another order
    np.testing.assert_allclose(pooled.array(name), expected(np.asarray(whole.array(name))), rtol=1e-5, atol=1e-6)


def test_in_memory_and_on_disk_are_equal_bit_for_bit(data: Path, plan_of: Plan, tmp_path: Path) -> None:
    made = plan_of(data, ["Conv:1", "Relu:0"], pool="mean", shard=32)
    memory, disk = into_memory(made), write(made, tmp_path / "c").captured
    for layer in memory.layers:
        np.testing.assert_array_equal(memory.array(layer), np.asarray(disk.array(layer)))
    np.testing.assert_array_equal(memory.confidences, disk.confidences)
    assert memory.sources == disk.sources


@pytest.mark.parametrize("seed", range(4))
def test_shards_in_any_order_by_any_worker_are_the_same_bytes(
    data: Path, plan_of: Plan, tmp_path: Path, seed: int
) -> None:
    """Each shard by a worker of its own, which has run nothing before, in a shuffled order."""
    from onnx_inspect.capture.store import Store

    once = plan_of(data, ["Relu:0"], pool="none", shard=16)
    write(once, tmp_path / "once")
    (tmp_path / "again").mkdir()
    store = Store(tmp_path / "again", once.plan.layers)
    order = np.random.default_rng(seed).permutation(once.plan.shards)[:4]
    for shard in order:
        worker = plan_of(data, ["Relu:0"], pool="none", shard=16).worker
        store.write(int(shard), worker.block(int(shard)))
    whole = contents(tmp_path / "once")
    for name, content in contents(tmp_path / "again").items():
        assert whole[name] == content, name


def test_an_interrupted_capture_is_gone_on_with_and_equal_bit_for_bit(
    data: Path, plan_of: Plan, tmp_path: Path
) -> None:
    made = plan_of(data, ["Relu:0", "Relu:-1"], pool="none", shard=16)
    write(made, tmp_path / "once")
    whole = contents(tmp_path / "once")
    rng = np.random.default_rng(0)
    for turn in range(3):  # as a kill leaves it: some shards missing, one cut short, a temporary file
        folder = tmp_path / f"turn{turn}"
        shutil.copytree(tmp_path / "once", folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
        records = sorted((folder / "rows").iterdir())
        for record in rng.choice(records, 3, replace=False):
            record.unlink()
        arrays = sorted(folder.glob("0*/*.npy"))
        arrays[turn].write_bytes(arrays[turn].read_bytes()[:-5])
        (folder / "rows" / ".onnx-inspect-half.json").write_text("{")
        done = write(plan_of(data, ["Relu:0", "Relu:-1"], pool="none", shard=16), folder)
        assert contents(folder) == whole
        assert 0 < done.resumed < made.plan.shards


def test_a_changed_shard_is_made_again(data: Path, plan_of: Plan, tmp_path: Path) -> None:
    made = plan_of(data, ["Relu:-1"], pool="mean", shard=50)
    write(made, tmp_path / "c")
    whole = contents(tmp_path / "c")
    path = next((tmp_path / "c").glob("0*/000001.npy"))
    array = np.load(path)
    array[0, 0] += 1
    np.save(path, array)
    assert write(made, tmp_path / "c").resumed == 2
    assert contents(tmp_path / "c") == whole


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"layers": ["Relu:0"]}, "layers"),
        ({"pool": "max"}, "pool 'mean', not 'max'"),
        ({"shard": 20}, "shard 16, not 20"),
        ({"threads": 2}, "threads '1', not '2'"),
        ({"net": "digits_convnet_epoch1.onnx"}, "another model"),
    ],
)
def test_another_capture_in_the_folder_is_never_mixed_in(
    data: Path, plan_of: Plan, fixtures: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    plain: dict[str, Any] = {"layers": ["Relu:-1"], "pool": "mean", "shard": 16}
    write(plan_of(data, **plain), tmp_path / "c")
    before = contents(tmp_path / "c")
    if "net" in changed:
        changed = {"net": fixtures / changed["net"]}
    with pytest.raises(OutputError, match=said):
        write(plan_of(data, **plain | changed), tmp_path / "c")
    assert contents(tmp_path / "c") == before


def test_a_folder_with_other_files_is_refused(data: Path, plan_of: Plan, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="other files"):
        write(plan_of(data, ["Relu:-1"]), tmp_path)


def test_broken_pictures_are_skipped_counted_and_told(digits: Digits, plan_of: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for n in range(20):
        path = folder / str(digits[1][n]) / f"{n:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0][n]).save(path)
        if n in (0, 7, 8):
            path.write_bytes(path.read_bytes()[: 30 if n else 0])
    found = write(plan_of(folder, ["Relu:-1"], shard=4), tmp_path / "c").captured
    assert len(found) == 17 and len(found.skipped) == 3
    assert {Path(one.source).name for one in found.skipped} == {"00.png", "07.png", "08.png"}
    assert all(Path(one.source).name in one.reason for one in found.skipped)
    assert [int(Path(source).stem) % 10 for source in found.sources] == found.labels.tolist()  # digits come in turn
    assert len(found.array(found.layers[0])) == 17
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["skipped"], manifest["complete"]) == (17, 3, True)


def test_a_data_set_that_is_all_broken_is_an_error(plan_of: Plan, tmp_path: Path) -> None:
    (tmp_path / "d" / "cat").mkdir(parents=True)
    (tmp_path / "d" / "cat" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 1 samples can be read: .*a\.png is empty"):
        plan_of(tmp_path / "d", ["Relu:-1"])


def test_sharded_arrays_index_as_numpy_does(data: Path, plan_of: Plan, tmp_path: Path) -> None:
    found = write(plan_of(data, ["Relu:-1"], shard=16), tmp_path / "c").captured
    array = found.array(found.layers[0])
    assert isinstance(array, capture.Sharded) and all(isinstance(part, np.memmap) for part in array.shards)
    whole = np.asarray(array)
    assert array.shape == whole.shape and array.dtype == whole.dtype and len(array) == 150
    keys = (3, -1, slice(10, 70, 7), slice(None, None, -1), np.array([149, 0, 17, 17]), np.arange(150) % 3 == 0)
    for key in keys:
        np.testing.assert_array_equal(array[key], whole[key])
    np.testing.assert_array_equal(np.stack(list(array)), whole)
    with pytest.raises(IndexError):
        array[150]


def test_an_unfinished_capture_is_refused_unless_asked_for(data: Path, plan_of: Plan, tmp_path: Path) -> None:
    write(plan_of(data, ["Relu:-1"], shard=50), tmp_path / "c")
    (tmp_path / "c" / "rows" / "000001.json").unlink()
    with pytest.raises(InputError, match="1 of 3 shards are missing"):
        capture.open(tmp_path / "c")
    part = capture.open(tmp_path / "c", partial=True)
    assert part.places.tolist() == [*range(50), *range(100, 150)]


def test_a_layer_that_was_not_captured_is_named(data: Path, plan_of: Plan, tmp_path: Path) -> None:
    found = write(plan_of(data, ["Relu:-1"]), tmp_path / "c").captured
    with pytest.raises(LayerError, match="these were"):
        found.array("other")


def test_class_tokens_are_the_tokens_before_the_map(digits: Digits, data: Path, fixtures: Path, plan_of: Plan) -> None:
    vit = fixtures / "digits_vit.onnx"
    whole = into_memory(plan_of(data, ["Add:-1"], net=vit, pool="none"))
    tokens = np.asarray(whole.array(whole.layers[0]))
    if tokens.ndim != 3:
        raise AssertionError(tokens.shape)
    for how, expected in (("cls", tokens[:, 0]), ("mean", tokens[:, 1:].mean(axis=1))):
        pooled = into_memory(plan_of(data, ["Add:-1"], net=vit, pool=how))
        # float32 means in another order
        np.testing.assert_allclose(pooled.array(whole.layers[0]), expected, rtol=1e-5, atol=1e-6)


def test_maps_have_no_class_token(data: Path, plan_of: Plan) -> None:
    with pytest.raises(LayerError, match="no class token"):
        plan_of(data, ["Conv:0"], pool="cls")


def test_only_one_portion_is_held_beside_those_read_ahead(data: Path, plan_of: Plan) -> None:
    """Reading never runs further ahead than the queue is long."""
    made = plan_of(data, ["Relu:-1"], shard=8)
    read: list[int] = []
    reader = replace(made.worker.reader)
    worker = replace(made.worker, reader=Counting(reader, read))
    most = 0
    for done, _ in enumerate(blocks(worker, range(made.plan.shards)), 1):
        most = max(most, len(read) - done)
    assert len(read) == made.plan.shards
    assert most <= 4  # two wait in the queue, one is handed over, one is being read


class Counting:
    """A reader that notes how often it was asked."""

    def __init__(self, reader: Any, read: list[int]) -> None:
        self.reader, self.asked = reader, read

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)

    def read(self, places: range) -> Any:
        self.asked.append(places.start)
        return self.reader.read(places)


def test_the_preprocess_is_part_of_the_plan(data: Path, plan_of: Plan) -> None:
    settings = dict(plan_of(data, ["Relu:-1"]).plan.settings)
    assert Preprocess.from_json(json.loads(settings["preprocess"])).formula() == "signed"


def test_workers_can_be_sent_to_other_processes_and_give_the_same(data: Path, plan_of: Plan) -> None:
    worker = plan_of(data, ["Relu:0", "Relu:-1"], pool="mean", shard=40).worker
    own = worker.block(2)  # the engine is made now, and isn't sent
    sent = pickle.loads(pickle.dumps(worker)).block(2)
    assert own.sources == sent.sources and own.places == sent.places == tuple(range(80, 120))
    for layer, array in own.arrays.items():
        np.testing.assert_array_equal(array, sent.arrays[layer])


@pytest.mark.slow
def test_memory_stays_flat_from_1000_to_20000_pictures(tmp_path: Path) -> None:
    """20,000 pictures are 246 MB as the network takes them; what grows is their names and classes."""
    largest = []
    for count in (1_000, 20_000):
        pictures = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.savez_compressed(tmp_path / f"{count}.npz", images=pictures, labels=np.arange(count) % 10)
        words = ["--one", str(tmp_path / f"{count}.npz"), str(tmp_path / f"out{count}")]
        ran = subprocess.run(
            [sys.executable, str(BENCHMARK), *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=BENCHMARK.parents[1],
        )
        largest.append(int(re.search(r"(\d+) MiB at most", ran.stdout)[1]))  # type: ignore[index]
    assert largest[1] - largest[0] < 32
