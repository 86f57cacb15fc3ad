"""Update-selective merging: hand examples (arXiv 2510.15110), exact selection, and what must not change."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rl import checkpoint
from rl import merge as module
from rl.merge import merge, told


def model(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1, config: dict | None = None) -> Path:
    folder.mkdir(parents=True)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(tensors)}
        for file in set(weight_map.values()):
            save_file(
                {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}, folder / file, metadata={"format": "pt"}
            )
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def merged(tmp: Path, base: dict, delta: dict, keep: float, scale: float, scope: str = "global") -> dict[str, torch.Tensor]:
    trained = {name: base[name] + delta[name] for name in base}
    merge(model(tmp / "base", base), model(tmp / "trained", trained), tmp / "out", keep, scale, scope)
    return load(tmp / "out")


def test_the_top_quarter_of_eight_changes_is_taken_over_at_seven_tenths(tmp_path):
    base = {"w": torch.tensor([0.5, -0.2, 0.1, 0.3, -0.4, 0, 0.2, -0.1])}
    delta = {"w": torch.tensor([0.01, -0.04, 0.002, 0.03, -0.005, 0.02, -0.001, 0.015])}
    result = merged(tmp_path, base, delta, keep=0.25, scale=0.7)["w"]
    torch.testing.assert_close(result, torch.tensor([0.5, -0.228, 0.1, 0.321, -0.4, 0, 0.2, -0.1]))
    untouched = [0, 2, 4, 5, 6, 7]
    assert torch.equal(result[untouched], base["w"][untouched])


@pytest.mark.parametrize(
    ("scope", "first", "second"),
    [("tensor", [1, 1, 1, 1.028], [1, 1, 1, 1.56]), ("global", [1, 1, 1, 1], [1, 1, 1.49, 1.56])],
)
def test_scope_says_whether_tensors_compete(tmp_path, scope, first, second):
    base = {"a": torch.ones(4), "b": torch.ones(4)}
    delta = {"a": torch.tensor([0.01, 0.02, 0.03, 0.04]), "b": torch.tensor([0.5, 0.6, 0.7, 0.8])}
    result = merged(tmp_path, base, delta, keep=0.25, scale=0.7, scope=scope)
    torch.testing.assert_close(result["a"], torch.tensor(first, dtype=torch.float32))
    torch.testing.assert_close(result["b"], torch.tensor(second, dtype=torch.float32))


def expected(base: dict[str, torch.Tensor], trained: dict[str, torch.Tensor], keep: float, scale: float) -> dict[str, torch.Tensor]:
    """The same by a stable sort of everything at once."""
    names = sorted(base)
    old = torch.cat([base[name].reshape(-1) for name in names])
    delta = torch.cat([trained[name].reshape(-1).float() for name in names]) - old.float()
    order = np.argsort(-delta.abs().numpy(), kind="stable")[: round(keep * len(old))]
    chosen = torch.zeros(len(old), dtype=torch.bool)
    chosen[torch.from_numpy(order.copy())] = True
    new = torch.where(chosen & (delta != 0), (old.float() + scale * delta).to(old.dtype), old)
    parts = new.split([base[name].numel() for name in names])
    return {name: part.reshape(base[name].shape) for name, part in zip(names, parts, strict=True)}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    keep=st.sampled_from([0.005, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0]),
    grid=st.sampled_from([0.0, 0.25, 1.0]),  # a coarse grid makes most changes equal, or zero
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    shards=st.sampled_from([1, 2, 3]),
    chunk=st.sampled_from([3, 1 << 24]),
)
def test_selection_equals_a_stable_sort_bit_for_bit_whatever_the_ties_shards_and_dtype(seed, keep, grid, dtype, shards, chunk):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"z": (5, 7), "a": (11,), "m.k": (2, 3, 4), "b": (1,)}
    base = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    base["a"][3] = -0.0
    noise = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    delta = {name: (x / grid).round() * grid if grid else x * 0.1 for name, x in noise.items()}
    trained = {name: (base[name].float().round() if grid else base[name].float()) + delta[name] for name in base}
    base = {name: tensor.float().round().to(dtype) if grid else tensor for name, tensor in base.items()}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        tmp = Path(name)
        counts = merge(model(tmp / "base", base, shards), model(tmp / "trained", trained, 4 - shards), tmp / "out", keep, 0.7)
        result, wanted = load(tmp / "out"), expected(base, trained, keep, 0.7)
    assert result.keys() == wanted.keys()
    assert all(result[name].dtype == dtype and bits(result[name]) == bits(wanted[name]) for name in wanted)
    assert counts["kept"] <= round(keep * counts["entries"])
    assert counts["changed"] == sum(int((result[name] != base[name]).sum()) for name in base)


def test_equal_changes_go_to_the_lower_index_of_the_first_name(tmp_path):
    base = {"b": torch.zeros(3), "a": torch.zeros(3)}
    result = merged(tmp_path, base, {"b": torch.ones(3), "a": -torch.ones(3)}, keep=4 / 6, scale=1.0)
    assert result["a"].tolist() == [-1, -1, -1]
    assert result["b"].tolist() == [1, 0, 0]


def test_unchanged_entries_are_never_counted_as_taken_over(tmp_path):
    base, trained = {"w": torch.arange(4.0)}, {"w": torch.tensor([0.0, 1, 2, 5])}
    counts = merge(model(tmp_path / "b", base), model(tmp_path / "t", trained), tmp_path / "out", 1.0, 0.5)
    assert counts == {"tensors": 1, "entries": 4, "kept": 1, "changed": 1}
    assert load(tmp_path / "out")["w"].tolist() == [0, 1, 2, 4]


def test_a_sharded_base_gives_a_sharded_checkpoint_with_the_same_index(tmp_path):
    base = {name: torch.zeros(4) for name in "abc"}
    model(tmp_path / "base", base, shards=2)
    merge(tmp_path / "base", model(tmp_path / "trained", {name: torch.ones(4) for name in "abc"}), tmp_path / "out", 1.0, 1.0)
    checkpoint.verify(tmp_path / "out")
    assert (tmp_path / "out/model.safetensors.index.json").read_text() == (tmp_path / "base/model.safetensors.index.json").read_text()
    assert all(tensor.tolist() == [1] * 4 for tensor in load(tmp_path / "out").values())


def test_the_smaller_bf16_dtype_of_base_stays_and_config_says_so(tmp_path):
    base = model(tmp_path / "base", {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}, config={"dtype": "bfloat16", "rope": 1})
    trained = model(tmp_path / "trained", {"w": torch.tensor([1.5, 2.001])}, config={"dtype": "float32", "rope": 2})
    (trained / "tokenizer.json").write_text("{}")
    (trained / "optimizer.pt").write_text("not ours to carry")
    counts = merge(base, trained, tmp_path / "out", 1.0, 1.0)
    assert load(tmp_path / "out")["w"].tolist() == [1.5, 2.0] and load(tmp_path / "out")["w"].dtype == torch.bfloat16
    assert (counts["kept"], counts["changed"]) == (2, 1), "a change of 0.001 rounds away at 2.0 in bf16"
    lost = "; 1 more changes were lost in the rounding to the base's dtype"
    assert told(counts, Path("out")) == f"out: 1 of 2 entries moved, in 1 tensors{lost}"
    assert told(counts | {"changed": 2}, Path("out")) == "out: 2 of 2 entries moved, in 1 tensors"
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"dtype": "bfloat16", "rope": 2}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.safetensors", "config.json", "tokenizer.json", "manifest.json"}


@pytest.mark.parametrize("stored", ["base", "trained", "both", "neither"])
def test_a_tied_head_counts_once_and_stays_tied(tmp_path, stored):
    old, new = torch.zeros(4), torch.tensor([1.0, 2, 3, 4])
    base, trained = {"model.embed_tokens.weight": old, "x": old.clone()}, {"model.embed_tokens.weight": new, "x": old.clone()}
    if stored in ("base", "both"):
        base["lm_head.weight"] = old.clone()
    if stored in ("trained", "both"):
        trained["lm_head.weight"] = new.clone()
    tied = {"tie_word_embeddings": True}
    counts = merge(model(tmp_path / "b", base, config=tied), model(tmp_path / "t", trained, config=tied), tmp_path / "out", 0.25, 1.0)
    result = load(tmp_path / "out")
    assert counts["entries"] == 8 and counts["kept"] == 2
    assert result["model.embed_tokens.weight"].tolist() == [0, 0, 3, 4]
    assert ("lm_head.weight" in result) == (stored in ("base", "both"))
    assert torch.equal(result.get("lm_head.weight", result["model.embed_tokens.weight"]), result["model.embed_tokens.weight"])


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    base = model(tmp_path / "base", {"w": torch.zeros(4), "n": torch.arange(3)})
    cases = [
        ({"w": torch.zeros(4)}, "n is only in .*base"),
        ({"w": torch.zeros(5), "n": torch.arange(3)}, r"w has shape \[4\] in .* and \[5\]"),
        ({"w": torch.zeros(4), "n": torch.arange(3) + 1}, r"n \(I64\) differs"),
        ({"w": torch.tensor([0, float("nan"), 0, 0]), "n": torch.arange(3)}, "w in .* not finite"),
    ]
    for i, (tensors, words) in enumerate(cases):
        with pytest.raises(ValueError, match=words):
            merge(base, model(tmp_path / f"t{i}", tensors), tmp_path / "out", 0.25, 0.7)
    apart = {"model.embed_tokens.weight": torch.zeros(4), "lm_head.weight": torch.ones(4)}
    with pytest.raises(ValueError, match=r"tie_word_embeddings, but lm_head.weight and model.embed_tokens.weight differ"):
        merge(model(tmp_path / "apart", apart, config={"tie_word_embeddings": True}), base, tmp_path / "out", 0.25, 0.7)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"only pickled weights \(.bin\), which are not read"):
        merge(base, pickled, tmp_path / "out", 0.25, 0.7)
    with pytest.raises(ValueError, match="no such file; is this a checkpoint folder"):
        merge(base, tmp_path / "absent", tmp_path / "out", 0.25, 0.7)
    for lost, words in [
        (
            "model-00002-of-00002.safetensors",
            "model-00002-of-00002.safetensors: no such file; model.safetensors.index.json names it: fetch it again",
        ),
        ("model.safetensors.index.json", "its weights are in several files, which model.safetensors.index.json would list"),
        ("", "no file holds ghost, which model.safetensors.index.json says is there; fetch both again"),
    ]:
        parts = model(tmp_path / f"parts{len(lost)}", {"w": torch.zeros(4), "n": torch.arange(3)}, shards=2)
        if lost:
            (parts / lost).unlink()
        else:
            index = json.loads((parts / "model.safetensors.index.json").read_text())
            index["weight_map"]["ghost"] = index["weight_map"]["w"]
            (parts / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=words):
            merge(base, parts, tmp_path / "out", 0.25, 0.7)
    (pickled / "model.safetensors").write_bytes(b"not a header")
    with pytest.raises(ValueError, match="no intact safetensors file"):
        merge(base, pickled, tmp_path / "out", 0.25, 0.7)
    empty = model(tmp_path / "empty", {"w": torch.zeros(0), "n": torch.arange(3)})
    with pytest.raises(ValueError, match=r"empty holds no F64, F32, F16, BF16 values: there is nothing to merge"):
        merge(empty, empty, tmp_path / "out", 0.25, 0.7)
    for keep, scale, scope, words in [
        (0, 1, "global", "keep: 0"),
        (1.1, 1, "global", "keep"),
        (0.5, float("nan"), "global", "scale"),
        (0.5, float("inf"), "global", "scale"),
        (0.5, 1, "layer", "scope: 'layer'"),
    ]:
        with pytest.raises(ValueError, match=words):
            merge(base, base, tmp_path / "out", keep, scale, scope)
    with pytest.raises(FileExistsError, match="exists already"):
        merge(base, base, tmp_path, 0.5, 1.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["base", "trained"])
@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("config.json", '{"half', r"config\.json: not JSON \("),
        ("config.json", "[]", r"config\.json: a list, not a JSON object"),
        ("model.safetensors.index.json", '{"half', r"index\.json: not JSON \("),
        ("model.safetensors.index.json", '{"metadata": {}}', r"index\.json: no weight_map with the file of each tensor"),
        ("model.safetensors.index.json", '{"weight_map": {"w": 1}}', r"index\.json: no weight_map"),
    ],
)
def test_a_damaged_json_file_is_named(tmp_path, side, file, text, words):
    folders = {name: model(tmp_path / name, {"w": torch.zeros(4)}, shards=2) for name in ("base", "trained")}
    (folders[side] / file).write_text(text)
    with pytest.raises(ValueError, match=rf"{side}/.*{words}"):
        merge(folders["base"], folders["trained"], tmp_path / "out", 0.25, 0.7)
    assert not (tmp_path / "out").exists()
