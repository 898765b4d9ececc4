"""Texts become what a model's inputs want: by the tokenizers library itself, by closed forms, or refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.errors import InputError
from onnx_inspect.graph.model import TensorSpec
from onnx_inspect.inputs.read import read
from onnx_inspect.inputs.text import beside, parts, read_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="texts need the package tokenizers")

WORDS = "the cat sat on a mat bank rose rates river near dog un ##believ ##able good not movie . , !".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
NAMES = ("input_ids", "attention_mask", "token_type_ids")


def spec(name: str, *shape: Any, dtype: str = "int64") -> TensorSpec:
    return TensorSpec(name, dtype, shape)


BERT = [spec(name, "batch", "sequence") for name in NAMES]


def wordpiece() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(VOCABULARY[:5])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write a tokenizer, changed by a function, and give its file."""

    def save(change: Callable[[Any], None] = lambda made: None, made: Any = None) -> Path:
        one = made or wordpiece()
        change(one)
        one.save(str(tmp_path / "tokenizer.json"))
        return tmp_path / "tokenizer.json"

    return save


def byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    made.train_from_iterator(["the cat sat on the mat", "the dog sat near the river"] * 4, trainer)
    return made


def test_a_text_becomes_the_ids_that_the_tokenizers_library_gives(saved: Callable[..., Path]) -> None:
    path = saved()
    batch = read(BERT, [], texts=["The cat sat."], tokenizer=path)
    expected = tokenizers.Tokenizer.from_file(str(path)).encode("The cat sat.")
    assert batch.arrays["input_ids"].tolist() == [expected.ids] == [[2, 5, 6, 7, 23, 3]]
    assert batch.arrays["attention_mask"].tolist() == [[1] * 6]
    assert batch.arrays["token_type_ids"].tolist() == [[0] * 6]
    assert all(array.dtype == np.int64 for array in batch.arrays.values())
    assert batch.primary == "input_ids"
    assert batch.text is not None
    assert batch.text.tokens[0].pieces == ("[CLS]", "The", "cat", "sat", ".", "[SEP]")
    assert batch.text.tokens[0].words == (-1, 0, 1, 2, 3, -1)
    assert batch.sources == ("The cat sat.",)


def test_a_pair_has_two_segments_and_its_words_are_counted_on(saved: Callable[..., Path]) -> None:
    batch = read(BERT, [], texts=["the cat ||| a mat"], tokenizer=saved())
    assert batch.arrays["input_ids"].tolist() == [[2, 5, 6, 3, 9, 10, 3]]
    assert batch.arrays["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert batch.text is not None
    assert batch.text.tokens[0].words == (-1, 0, 1, -1, 2, 3, -1)
    assert batch.text.tokens[0].segments[1:6] == (0, 0, 0, 1, 1)


def test_shorter_texts_are_filled_up_and_that_is_said(saved: Callable[..., Path]) -> None:
    batch = read(BERT, [], texts=["the cat", "the cat sat on a mat"], tokenizer=saved())
    assert batch.arrays["input_ids"].tolist() == [[2, 5, 6, 3, 0, 0, 0, 0], [2, 5, 6, 7, 8, 9, 10, 3]]
    assert batch.arrays["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [1] * 8]
    assert batch.notes == ("1 of 2 texts filled up with [PAD] (id 0) to the longest text's 8 tokens",)
    assert batch.text is not None
    assert batch.text.tokens[0].count == 4
    assert batch.text.counts == (2, 6)


@pytest.mark.parametrize("length", [4, 12])
def test_a_fixed_length_cuts_or_fills_and_that_is_said(saved: Callable[..., Path], length: int) -> None:
    specs = [spec(name, 1, length) for name in NAMES]
    batch = read(specs, [], texts=["the cat sat on a mat"], tokenizer=saved())
    assert batch.arrays["input_ids"].shape == (1, length)
    if length == 4:
        assert batch.arrays["input_ids"].tolist() == [[2, 5, 6, 3]]
        assert batch.notes == ("text 1 of 1 is cut from 8 tokens to 4, the model's fixed length",)
    else:
        assert batch.notes == ("the text filled up with [PAD] (id 0) to the model's fixed 12 tokens",)


def test_the_tokenizers_own_limit_and_padding_side_are_kept(saved: Callable[..., Path]) -> None:
    def change(made: Any) -> None:
        made.enable_truncation(5)
        made.enable_padding(direction="left", pad_id=0, pad_token="[PAD]", length=64)

    path = saved(change)
    batch = read(
        [*BERT, spec("position_ids", "batch", "sequence")], [], texts=["a cat", "a cat sat on"], tokenizer=path
    )
    assert batch.arrays["input_ids"].tolist() == [[0, 2, 9, 6, 3], [2, 9, 6, 7, 3]]
    assert batch.arrays["position_ids"].tolist() == [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert any("cut from 6 tokens to 5, tokenizer.json's limit" in note for note in batch.notes)


def test_a_model_without_a_mask_is_said_to_see_what_fills_up(saved: Callable[..., Path]) -> None:
    batch = read(BERT[:1], [], texts=["the cat", "the"], tokenizer=saved())
    assert "the model takes no attention mask, so it sees them" in batch.notes[0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["input_ids", "attention_mask"], {"ids": "input_ids", "mask": "attention_mask"}),
        (["segment_ids:0", "input_mask:0", "input_ids:0"], {"types": "segment_ids:0", "mask": "input_mask:0"}),
        (["tokens"], {"ids": "tokens"}),
        (["input1"], {"ids": "input1"}),
        (["position_ids", "input_ids"], {"positions": "position_ids"}),
    ],
)
def test_inputs_are_told_by_their_names(names: list[str], expected: dict[str, str]) -> None:
    found = parts({name: spec(name, "N", "T") for name in names})
    assert expected.items() <= found.items()
    assert "ids" in found


def test_a_float_mask_an_int32_id_and_a_third_axis_are_served(saved: Callable[..., Path]) -> None:
    specs = [spec("input_ids", "N", 1, "T", dtype="int32"), spec("attention_mask", "N", "T", dtype="float32")]
    batch = read(specs, [], texts=["the cat"], tokenizer=saved())
    assert batch.arrays["input_ids"].shape == (1, 1, 4)
    assert batch.arrays["input_ids"].dtype == np.int32
    assert batch.arrays["attention_mask"].dtype == np.float32


def test_a_picture_and_a_text_go_together(saved: Callable[..., Path], fixtures: Path) -> None:
    specs = [spec("pixel_values", "N", 3, 32, 32, dtype="float32"), *BERT[:2]]
    pictures = [str(fixtures / "inputs" / f"digit_{d}.png") for d in (3, 5)]
    batch = read(specs, pictures, texts=["the cat"], tokenizer=saved(), preprocess="unit")
    assert batch.primary == "pixel_values"
    assert batch.read_as is None
    assert batch.arrays["input_ids"].tolist() == [[2, 5, 6, 3]] * 2
    assert batch.text is not None
    assert len(batch.text.tokens) == 2


def test_ids_without_a_tokenizer_are_taken_as_they_are() -> None:
    batch = read(BERT, [], texts=["101 7592, 102", "[101,102]"])
    assert batch.arrays["input_ids"].tolist() == [[101, 7592, 102], [101, 102, 0]]
    assert batch.text is not None
    assert batch.text.tokens[0].pieces == ("101", "7592", "102")
    assert batch.text.hiding.fill is None  # the attention mask: nobody knows a [MASK]


def test_ids_given_as_an_array_get_their_masks_and_their_tokens_names(saved: Callable[..., Path]) -> None:
    batch = read(BERT, ["input_ids=[[2,5,12,3]]"], tokenizer=saved())
    assert batch.arrays["attention_mask"].tolist() == [[1, 1, 1, 1]]
    assert "input 'attention_mask': all ones: every id is seen" in batch.notes
    assert batch.text is not None
    assert batch.text.tokens[0].pieces == ("[CLS]", "the", "rose", "[SEP]")
    assert batch.text.tokens[0].words == (-1, 0, 1, -1)


def test_a_decoders_memory_starts_empty() -> None:
    specs = [*BERT[:2], spec("past_key_values.0.key", "batch", 4, "past", 8, dtype="float32")]
    batch = read(specs, [], texts=["1 2 3"])
    assert batch.arrays["past_key_values.0.key"].shape == (1, 4, 0, 8)
    assert batch.primary == "input_ids"


def test_an_input_of_strings_gets_the_text_itself() -> None:
    batch = read([spec("text", None, 1, dtype="string")], [], texts=["so good", "so bad"])
    assert batch.arrays["text"].tolist() == [["so good"], ["so bad"]]


def test_texts_come_from_a_file_one_a_line(tmp_path: Path, saved: Callable[..., Path]) -> None:
    (tmp_path / "two.txt").write_text("the cat\n\na dog\n")
    batch = read(BERT, [], texts=[f"@{tmp_path / 'two.txt'}"], tokenizer=saved())
    assert batch.sources == ("the cat", "a dog")


def test_pieces_of_a_word_are_written_as_the_text_has_them(saved: Callable[..., Path]) -> None:
    batch = read(BERT, [], texts=["Unbelievable 東京 cat!"], tokenizer=saved())
    assert batch.text is not None
    tokens = batch.text.tokens[0]
    assert tokens.pieces == ("[CLS]", "Un", "##believ", "##able", "[UNK]", "[UNK]", "cat", "!", "[SEP]")
    assert "".join(tokens.written[1:4]) == "Unbelievable"
    assert tokens.glued == (False, False, True, True, False, True, False, True, False)
    assert tokens.words[1:4] == (0, 0, 0)
    np.testing.assert_array_equal(tokens.units(together=True), [-1, 0, 0, 0, 1, 2, 3, 4, -1])
    np.testing.assert_array_equal(tokens.units(together=False), [-1, 0, 1, 2, 3, 4, 5, 6, -1])


def test_bytes_of_a_letter_are_not_shown_as_letters(saved: Callable[..., Path]) -> None:
    batch = read(BERT[:1], [], texts=["the cat 京\n!"], tokenizer=saved(made=byte_level()))
    assert batch.text is not None
    pieces = batch.text.tokens[0].pieces
    assert pieces[:2] == ("the", "cat")
    assert not any("Ġ" in piece or "Ċ" in piece for piece in pieces)
    assert "京" in pieces
    assert "⋯" in pieces  # its further bytes
    assert "↵" in pieces


def test_hiding_changes_only_what_is_hidden(saved: Callable[..., Path]) -> None:
    batch = read(BERT, [], texts=["the cat sat", "a dog"], tokenizer=saved())
    assert batch.text is not None
    assert batch.text.hiding.words == "[MASK] (id 4)"
    shown = np.array([[1, 0, 1], [0, 1, 1]], np.float32)
    changed = batch.text.hidden(batch.arrays, shown, np.array([0, 1]))
    assert changed["input_ids"].tolist() == [[2, 5, 4, 7, 3], [2, 4, 16, 3, 0]]
    by_mask = batch.text.hide("attention").hidden(batch.arrays, shown, np.array([0, 1]))
    assert by_mask["attention_mask"].tolist() == [[1, 1, 0, 1, 1], [1, 0, 1, 1, 0]]
    assert batch.text.hide("17").hidden(batch.arrays, shown, np.array([0, 1]))["input_ids"][0].tolist() == [
        2,
        5,
        17,
        7,
        3,
    ]
    assert batch.arrays["input_ids"][0].tolist() == [2, 5, 6, 7, 3]
    with pytest.raises(
        InputError, match="can't be hidden by 'blank' here; there are: mask, attention, unk, pad, an id"
    ):
        batch.text.hide("blank")


def test_values_of_parts_go_to_their_tokens_and_nothing_else(saved: Callable[..., Path]) -> None:
    batch = read(BERT, [], texts=["unbelievable cat", "a"], tokenizer=saved())
    assert batch.text is not None
    values = np.array([[[5.0, 7.0]], [[3.0, 99.0]]], np.float32)  # a sample has as many as it has words
    spread = batch.text.hide(None, together=True).on_tokens(values)
    assert spread.tolist() == [[[0, 5, 5, 5, 7, 0]], [[0, 3, 0, 0, 0, 0]]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a cat"], "--text 'a cat' needs a tokenizer: give its file with --tokenizer tokenizer.json"),
        ([" "], "text 1 of 1 is empty: give some words"),
        (["1 2", " ||| "], "text 2 of 2 is empty: give some words"),
    ],
)
def test_texts_that_cannot_be_read_are_one_line(texts: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(BERT, [], texts=texts)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(InputError, match=r"is no tokenizer of the `tokenizers` library"):
        read_tokenizer(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_tokenizer(tmp_path / "none.json")


def test_a_model_of_pictures_takes_no_text() -> None:
    with pytest.raises(InputError, match=r"no input for the ids of a text: it takes x: float32 \[N, 3, 8, 8\]"):
        read([spec("x", "N", 3, 8, 8, dtype="float32")], [], texts=["a cat"])


def test_too_many_ids_for_a_fixed_length_are_refused() -> None:
    with pytest.raises(InputError, match="3 ids were given, but input 'input_ids' takes 2"):
        read([spec("input_ids", 1, 2)], [], texts=["1 2 3"])


def test_a_text_and_an_array_for_the_same_input_are_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="'input_ids' is given twice"):
        read(BERT, [], texts=["a cat"], tokenizer=saved(), named={"input_ids": "[[1,2]]"})


def test_the_tokenizer_beside_a_model_is_found(tmp_path: Path, saved: Callable[..., Path]) -> None:
    assert beside(str(tmp_path / "net.onnx")) is None
    path = saved()
    assert beside(str(tmp_path / "net.onnx")) == path
    path.rename(tmp_path / "net.tokenizer.json")
    assert beside(str(tmp_path / "net.onnx")) == tmp_path / "net.tokenizer.json"
