"""The authors' checkpoints and DINOv2 trunks: loaded complete, or faults named."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import torch
from golden_model import golden_config, golden_model, golden_tensors
from published_files import crop_overrides, published_part, published_shapes, trunk_part
from safetensors.torch import save_file

from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.model.published import download_trunk, from_published, published_settings
from spmtrack_core.model.spmtrack import build_spmtrack, trainable_names
from spmtrack_core.model.weights import Checkpoint, load_checkpoint, read_trunk, save_checkpoint

VARIANTS = ["default", "shared_expert", "route_compression", "swiglu_nonsquare"]


def write(path, tensors, kind):
    if kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    elif kind == "torch":
        torch.save(tensors, path)
    elif kind == "nested":
        torch.save({"model": tensors, "epoch": 170, "optimizer": {}}, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def files(tmp_path):
    """Makes the two files of a variant; returns their paths."""

    def make(variant="default", kind="safetensors", naming="dinov2", change=None):
        tensors, trunk = published_part(variant), trunk_part(variant, naming)
        if variant == "swiglu_nonsquare":  # a release has a square table
            trunk["pos_embed"] = torch.randn(1, 1 + 64, 64)
        if change:
            change(tensors, trunk)
        write(tmp_path / "published.bin", tensors, kind)
        return tmp_path / "published.bin", write(tmp_path / "trunk.pth", trunk, "torch")

    return make


@pytest.mark.parametrize("naming", ["dinov2", "timm"])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "nested", "legacy"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_files_give_the_network_that_the_full_parameters_give(variant, kind, naming, files):
    published, trunk = files(variant, kind, naming)
    settings = crop_overrides(variant)
    checkpoint = load_checkpoint(published, trunk, overrides=settings)
    model, config = checkpoint.model, checkpoint.model_config
    assert config == golden_config(f"model_{variant}_params")
    assert "published.bin" in checkpoint.provenance["source"]
    expected = golden_model(f"model_{variant}_params").state_dict()
    resampled = {"trunk.pos_embed"} if variant == "swiglu_nonsquare" else set()
    for name, tensor in model.state_dict().items():
        if name not in resampled:
            assert torch.equal(tensor, expected[name]), name


def test_full_published_parameters_need_no_trunk(tmp_path):
    path = write(tmp_path / "full.bin", golden_tensors("model_default_params"), "safetensors")
    # the position table gives the search grid
    settings = ["model.alpha=8", "model.num_heads=4", "model.template_hw=[56,56]"]
    model = load_checkpoint(path, overrides=settings).model
    expected = golden_model("model_default_params").state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in model.state_dict().items())
    with pytest.raises(ValueError, match=r"full\.bin has a trunk of its own: leave .* out"):
        load_checkpoint(path, path, overrides=settings)


@pytest.mark.parametrize(
    ("scalars", "scaling", "reason"),
    [
        ({}, 1 / 8, "alpha is not stored when it is 1"),
        ({"expert_alpha": 8.0, "use_rsexpert": False}, 1.0, "alpha / rank"),
        ({"expert_alpha": 8.0, "use_rsexpert": True}, 8 / 8**0.5, "alpha / sqrt(rank)"),
        ({"expert_alpha": 12.0}, 1.5, "the flag is absent"),
    ],
)
def test_alpha_and_rank_stabilization_are_applied(scalars, scaling, reason, files):
    def change(tensors, _):
        del tensors["expert_alpha"], tensors["use_rsexpert"]
        tensors.update({name: torch.tensor(value) for name, value in scalars.items()})

    model = load_checkpoint(*files(change=change), overrides=crop_overrides("default")).model
    q = model.trunk.blocks[0].attn.qkv.q
    assert q.scaling == pytest.approx(scaling), reason


@pytest.mark.parametrize(
    ("sizes", "trunk", "tensors", "numbers"),
    [
        ((768, 12, 3072), "vit_base_patch14_dinov2", 447, 29_243_909),
        ((1024, 24, 4096), "vit_large_patch14_dinov2", 879, 75_872_261),
        ((1536, 40, 4096, True), "vit_giant_patch14_dinov2", 1455, 204_018_693),
        ((768, 11, 3000), "explicit", 411, 26_747_813),
    ],
    ids=["B", "L", "G", "another depth"],
)
def test_settings_and_tensors_of_the_released_files_are_recognized(sizes, trunk, tensors, numbers):
    """The numbers of tensors in test/golden/README.md, section 4, and two scalars."""
    shapes = published_shapes(*sizes)
    assert len(shapes) == tensors
    stored = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    stored |= {"expert_alpha": torch.tensor(64.0), "use_rsexpert": torch.tensor(False)}
    config = ModelConfig(**published_settings(stored, "a file"))
    assert (config.trunk, config.embed_dim, config.depth, config.mlp_hidden) == (trunk, *sizes[:3])
    assert (config.num_heads, config.scaling) == (sizes[0] // 64, 1.0)
    assert (config.template_hw, config.search_hw) == ((196, 196), (378, 378))
    with torch.device("meta"):
        model = build_spmtrack(config)
    own, state = from_published(stored, model), model.state_dict()
    assert set(own) == trainable_names(model)
    assert {name: tensor.shape for name, tensor in own.items()} == {n: state[n].shape for n in own}
    assert sum(tensor.numel() for tensor in own.values()) == numbers


def delete(name):
    return lambda tensors, trunk: (tensors if name in tensors else trunk).pop(name)


def reshape(name):
    def change(tensors, trunk):
        owner = tensors if name in tensors else trunk
        owner[name] = owner[name][..., :-1]

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            delete("blocks.2.attn.qkv.k.tmoe.routed_experts.3"),
            r"published\.bin .*missing: blocks\.2\.attn\.qkv\.k\.tmoe\.routed_experts\.3$",
        ),
        (delete("track_query"), r"published\.bin is neither a spmtrack-1 checkpoint"),
        (
            lambda tensors, _: tensors.update(track_query=torch.zeros(())),
            r"published\.bin: mis-shaped: track_query \(\)",
        ),
        (
            lambda tensors, _: tensors.update(expert_alpha=torch.zeros(2)),
            r"published\.bin: expert_alpha must be one finite number; got \[0\.0, 0\.0\]",
        ),
        (
            lambda tensors, _: tensors.update(expert_alpha=torch.tensor(0.0)),
            r"published\.bin has settings .*alpha must be above 0",
        ),
        (
            lambda tensors, _: tensors["query_embed"].fill_(torch.nan),
            r"published\.bin is not finite: query_embed$",
        ),
        (lambda _, trunk: trunk["norm.bias"].fill_(torch.inf), r"trunk\.pth is not finite: norm"),
        (
            lambda tensors, _: tensors.update({"blocks.9.x": torch.zeros(1)}),
            r"published\.bin has 4 blocks; missing: blocks\.3",
        ),
        (
            delete("blocks.0.attn.qkv.q.tmoe.expert_route.weight"),
            r"published\.bin .*missing: blocks\.0\.attn\.qkv\.q\.tmoe\.expert_route\.weight",
        ),
        (
            lambda tensors, _: tensors.update(surprise=torch.zeros(3)),
            r"published\.bin .*unexpected: surprise$",
        ),
        (
            reshape("head.cls_mlp.layers.1.weight"),
            r"mis-shaped: head\.cls_mlp\.layers\.1\.weight \(64, 63\) instead of \(64, 64\)$",
        ),
        (
            lambda tensors, _: tensors.update(query_embed=torch.zeros(1, 64, dtype=torch.int64)),
            r"published\.bin .*not of float32, .* or bfloat16: query_embed$",
        ),
        (delete("blocks.1.attn.qkv.bias"), r"trunk\.pth .*missing: blocks\.1\.attn\.qkv\.bias$"),
        (
            reshape("patch_embed.proj.weight"),
            r"mis-shaped: patch_embed\.proj\.weight \(64, 3, 14, 13\) instead",
        ),
        (
            lambda _, trunk: trunk.update(register_tokens=torch.zeros(1, 4, 64)),
            r"trunk\.pth .*unexpected: register_tokens$",
        ),
        (
            lambda _, trunk: trunk.update(pos_embed=torch.zeros(1, 48, 64)),
            r"trunk\.pth has a position table of 48 rows",
        ),
        (
            lambda _, trunk: trunk.update(pos_embed=torch.zeros(1, 2, 64)),
            r"trunk\.pth has a position table of 2 rows: not a grid",
        ),
        (delete("pos_embed"), r"trunk\.pth has none of the names of a DINOv2 trunk"),
    ],
)
def test_faults_are_listed_under_the_names_in_the_file(change, match, files):
    published, trunk = files(change=change)
    with pytest.raises(ValueError, match=match):
        load_checkpoint(published, trunk, overrides=crop_overrides("default"))


def test_a_file_that_does_not_fit_is_named_before_its_trunk_is_looked_for(files, tmp_path):
    published, _ = files(change=delete("blocks.2.attn.qkv.k.tmoe.routed_experts.3"))
    with pytest.raises(ValueError, match=r"published\.bin .*missing: blocks\.2"):
        load_checkpoint(published, tmp_path / "none.pth", overrides=crop_overrides("default"))


def test_a_missing_last_block_is_named():
    shapes = published_shapes(768, 11, 3072)
    stored = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=r"a file has 11 of the 12 blocks of vit_base"):
        published_settings(stored, "a file")


def test_a_stored_position_table_is_not_swapped(files, tmp_path):
    published, trunk = files("swiglu_nonsquare")
    settings = crop_overrides("swiglu_nonsquare")
    whole = load_checkpoint(published, trunk, overrides=settings)
    save_checkpoint(tmp_path / "full.safetensors", whole)
    turned = ["model.swapped_positions=true"]
    with pytest.raises(ValueError, match=r"full\.safetensors has a position table of its own"):
        load_checkpoint(tmp_path / "full.safetensors", overrides=turned)
    with pytest.raises(ValueError, match=r"full\.safetensors has its positions in another order"):
        load_checkpoint(published, tmp_path / "full.safetensors", overrides=settings + turned)


def test_settings_that_contradict_the_file_are_rejected(files):
    published, trunk = files()
    with pytest.raises(ValueError, match="mis-shaped"):
        load_checkpoint(published, trunk, overrides=[*crop_overrides("default"), "model.rank=4"])
    with pytest.raises(ValueError, match="unknown key 'heads'"):
        load_checkpoint(published, trunk, overrides=["model.heads=4"])


def test_nonsquare_tables_are_swapped_on_request_only(files):
    def by_column(_, trunk):  # every row of the table alike
        trunk["pos_embed"] = torch.arange(8.0).repeat(8).view(1, 64, 1).expand(1, 64, 64).clone()

    published, trunk = files("swiglu_nonsquare", change=by_column)
    settings = crop_overrides("swiglu_nonsquare")
    right = load_checkpoint(published, trunk, overrides=settings).model
    table = right.trunk.pos_embed.view(7, 9, 64)
    assert torch.allclose(table, table[:1].expand(7, 9, 64))
    settings.append("model.swapped_positions=true")
    swapped = load_checkpoint(published, trunk, overrides=settings).model
    table = swapped.trunk.pos_embed.view(9, 7, 64)
    assert torch.allclose(table, table[:1].expand(9, 7, 64))


class FakeHub:
    """Stands in for the hub's client: a cache, a server, or neither."""

    def __init__(self, monkeypatch, cached=None, served=None):
        self.cached, self.served, self.asked = cached, served, []
        for name in ("try_to_load_from_cache", "get_hf_file_metadata", "hf_hub_download"):
            monkeypatch.setattr(huggingface_hub, name, getattr(self, name))

    def try_to_load_from_cache(self, repository, filename):
        self.asked.append((repository, filename))
        return self.cached

    def get_hf_file_metadata(self, url, timeout):
        assert "timm/vit_base_patch14_dinov2.lvd142m" in url
        if self.served is None:
            raise RuntimeError("Name or service not known")

    def hf_hub_download(self, repository, filename):
        return self.served


def test_a_trunk_comes_from_the_cache_or_from_the_hub(monkeypatch):
    hub = FakeHub(monkeypatch, cached="/cache/model.safetensors")
    assert download_trunk("vit_base_patch14_dinov2") == Path("/cache/model.safetensors")
    assert hub.asked == [("timm/vit_base_patch14_dinov2.lvd142m", "model.safetensors")]
    FakeHub(monkeypatch, served="/new/model.safetensors")
    assert download_trunk("vit_base_patch14_dinov2") == Path("/new/model.safetensors")


def test_without_the_hub_the_error_names_the_file_to_bring(monkeypatch):
    FakeHub(monkeypatch)
    with pytest.raises(FileNotFoundError) as error:
        download_trunk("vit_base_patch14_dinov2")
    text = str(error.value)
    for part in (
        "Name or service not known",
        "timm/vit_base_patch14_dinov2.lvd142m",
        "model.safetensors",
        "dinov2_vitb14_pretrain.pth",
        "--trunk",
        "or put both into one file with spmtrack convert",  # the node has no --trunk
    ):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("name", ["explicit", "no_such_vit"])
def test_a_trunk_without_pretrained_weights_is_named(name):
    with pytest.raises(ValueError, match=f"no pretrained weights of '{name}'"):
        download_trunk(name)


def test_adapters_load_on_the_trunk_of_a_full_checkpoint(tmp_path):
    config = golden_config("model_default_params")
    model = golden_model("model_default_params")
    full, adapters = tmp_path / "full.safetensors", tmp_path / "adapters.safetensors"
    save_checkpoint(full, Checkpoint(model, config, TrackerConfig()))
    save_checkpoint(adapters, Checkpoint(model, config, TrackerConfig()), adapters_only=True)
    assert adapters.stat().st_size < 0.7 * full.stat().st_size
    loaded = load_checkpoint(adapters, full).model
    assert all(torch.equal(t, loaded.state_dict()[n]) for n, t in model.state_dict().items())
    other = trunk_part("default")
    other["norm.weight"] = other["norm.weight"] + 0.1
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"adapters\.safetensors was trained on another trunk"):
        load_checkpoint(adapters, tmp_path / "other.pth")
    frozen = read_trunk(model, config, full)
    assert set(frozen) == set(model.state_dict()) - trainable_names(model)
    with pytest.raises(ValueError, match="no pretrained weights of 'explicit'"):
        load_checkpoint(adapters)
