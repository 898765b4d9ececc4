from __future__ import annotations

import json

import pytest

from onnx_inspect.errors import InputError
from onnx_inspect.inputs.labels import METADATA_KEY, read_labels


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", b"\xef\xbb\xbf cat \r\ndog\r\n\r\n", ("cat", "dog")),
        ("a.txt", "chèvre\n\nzèbre".encode(), ("chèvre", "", "zèbre")),
        ("a.txt", "cat\ndog".encode("utf-16"), ("cat", "dog")),
        ("a.txt", b"[PAD]\n[UNK]\n", ("[PAD]", "[UNK]")),
        ("a.json", b'["cat", "dog"]', ("cat", "dog")),
        ("a.json", b'{"1": "dog", "0": "cat"}', ("cat", "dog")),
        ("a.json", b'{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ("tench", "goldfish")),
        ("a.json", b'{"0": "cat", "2": "dog"}', ("cat", "1", "dog")),
        ("a.json", b"[0, 1, 2]", ("0", "1", "2")),
    ],
)
def test_names_are_read_from_each_kind_of_file(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert read_labels(tmp_path / name, {}) == expected


def test_a_file_wins_over_metadata(tmp_path):
    (tmp_path / "a.txt").write_text("cat")
    metadata = {METADATA_KEY: json.dumps(["dog"])}
    assert read_labels(tmp_path / "a.txt", metadata) == ("cat",)
    assert read_labels(None, metadata) == ("dog",)
    assert read_labels(None, {}) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\n \n", "is empty"),
        ("a.txt", b"\xff\xff\x80", "not text"),
        ("a.json", b"[1,", "not JSON"),
        ("a.json", b'{"cat": 0}', "list of names, or an object from index to name"),
        ("a.json", b"[]", "list of names"),
        ("a.json", b"[null]", "where a name should be"),
        ("a.json", b'{"99999999": "cat"}', "index 99999999 but only 1"),
    ],
)
def test_what_holds_no_names_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / name, {})


def test_a_missing_file_and_broken_metadata_are_errors(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "gone.txt", {})
    with pytest.raises(InputError, match="can't be read"):
        read_labels(tmp_path, {})
    with pytest.raises(InputError, match=r"metadata onnx_inspect.labels"):
        read_labels(None, {METADATA_KEY: "cat"})
