"""Attention weighted by its gradient equals plain PyTorch's, whether the model writes attention out or fuses it."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_inspect.analysis.attention import relevance
from onnx_inspect.errors import MethodError
from onnx_inspect.graph.read import read
from onnx_inspect.inputs.batch import Batch
from onnx_inspect.relevance import relevances
from onnx_inspect.targets import parse
from tests.cli.conftest import run  # noqa: F401  # the fixture

torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need it")
FIXTURES = Path(__file__).parents[1] / "fixtures"
HEADS, WIDTH, SIDE = 2, 8, 12


class TinyViT(torch.nn.Module):  # type: ignore[misc]
    """Patches of 4, a class token, two blocks; attention written out, or left to PyTorch's fused function."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        nn = torch.nn
        torch.manual_seed(0)
        self.fused = fused
        self.kept: list[Any] = []
        self.patches, self.cls = nn.Conv2d(3, WIDTH, 4, 4), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.place = nn.Parameter(torch.randn(1, 10, WIDTH))
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Any) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.place
        for qkv, out in zip(self.qkv, self.out, strict=True):
            parts = qkv(self.norm(x)).reshape(x.shape[0], 10, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            q, k, v = 2 * parts[0], 2 * parts[1], parts[2]
            if self.fused:
                mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            else:
                soft = torch.softmax(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, -1)
                self.kept.append(soft)
                mixed = soft @ v
            x = x + out(mixed.transpose(1, 2).reshape(x.shape[0], 10, WIDTH))
        return self.head(self.norm(x)[:, 0])


def expected(x: Any, target: int) -> Any:
    """Chefer's rule on the written-out network, in float64."""
    net = TinyViT(fused=False).double().eval()
    score = net(torch.tensor(x, dtype=torch.float64))[:, target].sum()
    slopes = torch.autograd.grad(score, net.kept)
    total = torch.eye(10, dtype=torch.float64).expand(len(x), 10, 10)
    for soft, slope in zip(net.kept, slopes, strict=True):
        total = total + (soft * slope).clamp(min=0).mean(1) @ total
    return (total - torch.eye(10)).detach().numpy()


@pytest.mark.parametrize("target", [0, 3])
@pytest.mark.parametrize(
    ("fused", "exporter", "opset"), [(False, "legacy", 17), (True, "legacy", 17), (True, "dynamo", 23)]
)
def test_relevance_is_pytorchs(fused: bool, exporter: str, opset: int, target: int, tmp_path: Path) -> None:
    net, path = TinyViT(fused).eval(), tmp_path / "vit.onnx"
    x = np.random.default_rng(1).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        shapes: dict[str, Any] = (
            {"dynamo": False, "dynamic_axes": {"x": {0: "N"}}}
            if exporter == "legacy"
            else {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("N", min=1, max=64)},)}
        )
        torch.onnx.export(net, (torch.tensor(x),), str(path), opset_version=opset, input_names=["x"], **shapes)
    none = (None, None)
    batch = Batch({"x": x}, "x", ("a", "b"), none, none, None, None, ())
    found = relevances(read(path), batch, target=parse(str(target), None)[0])
    truth = expected(x, target)
    assert found.over.grid == (3, 3)
    assert found.over.prefix_names == ("cls",)
    np.testing.assert_allclose(found.values, truth, rtol=0, atol=2e-5 * truth.max())  # float32


def test_a_layer_without_gradient_adds_nothing() -> None:
    soft = np.random.default_rng(0).dirichlet(np.ones(4), (1, 2, 4))
    slope = np.random.default_rng(1).normal(size=soft.shape)
    np.testing.assert_array_equal(relevance([soft, soft], [slope, 0 * slope]), relevance([soft], [slope]))
    assert not relevance([soft], [-np.abs(slope)]).any()


def test_pictures_and_texts_get_a_figure_of_the_target_that_was_asked_for(run: Any, tmp_path: Path) -> None:  # noqa: F811
    picture = run(
        "attention",
        FIXTURES / "digits_vit.onnx",
        FIXTURES / "inputs" / "digit_3.png",
        *("--grad-rollout", "--target", "8", "--json", "-o", tmp_path, "--save", tmp_path / "a.npz"),
    )
    assert picture.code == 0, picture.err
    assert picture.json["relevance"]["inputs"][0]["target"] == "8"
    assert any(path.endswith("digit_3-grad-rollout.png") for path in picture.json["figures"])
    with np.load(tmp_path / "a.npz") as saved:
        assert saved["relevance"].shape == (1, 65, 65)
    text = run("attention", FIXTURES / "sentiment.onnx", "--text", "a warm film", "--grad-rollout", "-o", tmp_path)
    assert text.code == 0, text.err
    assert (tmp_path / "a_warm_film-grad-rollout.png").is_file()


def test_several_targets_at_once_are_refused(run: Any) -> None:  # noqa: F811
    found = run("attention", FIXTURES / "digits_vit.onnx", "random", "--grad-rollout", "--target", "all")
    assert found.code == 2
    assert "one target at a time" in found.err


def test_attention_that_is_no_stack_of_one_sequence_has_no_relevance(tmp_path: Path) -> None:
    from fixtures.attentive_cases import export

    case = export("Swin 8x16, SDPA", "legacy", 17)
    from onnx_inspect.graph.read import parse as parse_model

    count = len(next(iter(case.arrays.values())))
    none = (None,) * count
    batch = Batch(case.arrays, next(iter(case.arrays)), tuple(map(str, range(count))), none, none, None, None, ())
    with pytest.raises(MethodError, match="no relevance"):
        relevances(parse_model(case.data), batch, target=parse("output:0", None)[0])
