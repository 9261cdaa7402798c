"""Every setting of the project as a frozen dataclass, and the strict reader of their YAML files.

Settings end at the builders: no network, tracker or loss ever sees a configuration object that it
did not itself need as plain numbers.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


@dataclass(frozen=True)
class ModelConfig:
    """Numbers of one network. The defaults are SPMTrack-B at 378 px."""

    trunk: str = "vit_base_patch14_dinov2"
    """A timm model name, or ``explicit`` to build a ViT from the six numbers below."""
    embed_dim: int = 768
    """Width C of a token (explicit trunks only, as are the next five)."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 12
    """Attention heads; must divide ``embed_dim``."""
    mlp_hidden: int = 3072
    """Width inside the FFN, after the gate for ``swiglu``."""
    ffn: str = "mlp"
    """``mlp`` (two maps, GELU) or ``swiglu`` (packed gate and value, SiLU)."""
    patch_size: int = 14
    """Side of a patch in pixels; every trunk, template and search size must fit it."""
    stem: str = "patch"
    """``patch`` (one strided convolution) or ``conv`` (3x3 stride-2 convolutions; explicit)."""
    template_hw: tuple[int, int] = (196, 196)
    """Height and width of a reference frame crop in pixels."""
    search_hw: tuple[int, int] = (378, 378)
    """Height and width of the search region in pixels."""
    rank: int = 64
    """Width r of an expert."""
    alpha: float = 64.0
    """Expert scale: ``alpha / rank``, or ``alpha / sqrt(rank)`` with ``rs_scaling``."""
    experts: int = 4
    """Routed experts E of every linear map."""
    rs_scaling: bool = False
    """Rank-stabilised scaling of the experts."""
    shared_expert: bool = False
    """One more expert that is always on; excludes ``expert_compressors``."""
    expert_compressors: bool = False
    """A down-projection of its own for every expert instead of one for all."""
    adapted: tuple[str, ...] = ("q", "k", "v", "proj", "fc1", "fc2")
    """Maps of every block that have experts; the others stay plain."""
    drop_path: float = 0.0
    """Stochastic depth rate, the same for all blocks; training only."""
    swapped_positions: bool = False
    """Resample the trunk's position table as the published code does, which takes width for height
    where the search grid is not square; only for weights that were trained so."""

    def __post_init__(self) -> None:
        for name in ("embed_dim", "depth", "num_heads", "mlp_hidden", "patch_size",
                     "rank", "experts"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide {self.embed_dim}")
        if self.ffn not in ("mlp", "swiglu"):
            raise ValueError(f"ffn must be mlp or swiglu; got {self.ffn!r}")
        if self.stem not in ("patch", "conv"):
            raise ValueError(f"stem must be patch or conv; got {self.stem!r}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be finite and > 0; got {self.alpha}")
        power = self.patch_size > 1 and self.patch_size & (self.patch_size - 1) == 0
        if self.stem == "conv" and not (power and self.embed_dim >= self.patch_size):
            raise ValueError(
                "a conv stem needs a patch_size that is a power of two, and an embed_dim of at "
                f"least as much; got {self.patch_size} and {self.embed_dim}"
            )
        if self.stem == "conv" and self.trunk != "explicit":
            raise ValueError("a conv stem needs trunk: explicit")
        if self.shared_expert and self.expert_compressors:
            raise ValueError("shared_expert and expert_compressors exclude each other")
        maps = ("q", "k", "v", "proj", "fc1", "fc2")
        if unknown := [name for name in self.adapted if name not in maps]:
            raise ValueError(f"adapted must be some of {maps}; got {unknown[0]!r}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must be in [0, 1); got {self.drop_path}")
        for name in ("template_hw", "search_hw"):
            size_hw = getattr(self, name)
            if any(side < 1 or side % self.patch_size for side in size_hw):
                raise ValueError(f"{name} {size_hw} must be multiples of {self.patch_size} px")
        if any(z > x for z, x in zip(self.template_hw, self.search_hw, strict=True)):
            raise ValueError(f"template {self.template_hw} must fit in search {self.search_hw}")

    @property
    def template_grid_hw(self) -> tuple[int, int]:
        """Rows and columns of cells of a reference frame."""
        return self.template_hw[0] // self.patch_size, self.template_hw[1] // self.patch_size

    @property
    def search_grid_hw(self) -> tuple[int, int]:
        """Rows and columns of cells of the search region."""
        return self.search_hw[0] // self.patch_size, self.search_hw[1] // self.patch_size

    @property
    def scaling(self) -> float:
        """Factor on the experts' sum."""
        return self.alpha / (self.rank**0.5 if self.rs_scaling else self.rank)


REFERENCE_RULES = ("half_segments", "thirds", "template_twice")


@dataclass(frozen=True)
class TrackerConfig:
    """How the tracker uses the network. The defaults are the published ones."""

    template_area_factor: float = 2.0
    """Context of a reference frame crop (SiamFC rule)."""
    search_area_factor: float = 5.0
    """Context of the search region."""
    min_side: float = 10.0
    """Smallest box side, in frame pixels, that the search region is scaled by."""
    window_weight: float = 0.45
    """Share of the Hann window in the choice of the cell."""
    reference_rule: str = "half_segments"
    """``half_segments``, ``thirds`` (published for the LaSOT test set at 378 px) or
    ``template_twice``, for networks too weak to trust their own predictions."""
    buffer_frames: int = 128
    """Reference crops kept; longer videos keep every 2nd, 4th, 8th ... frame."""
    lost_threshold: float = 0.2
    """Confidence below which a target counts as lost."""

    def __post_init__(self) -> None:
        for name in ("template_area_factor", "search_area_factor"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if not 0 <= self.min_side < math.inf:
            raise ValueError(f"min_side must not be negative; got {self.min_side}")
        if not 0 <= self.window_weight <= 1:
            raise ValueError(f"window_weight must be in [0, 1]; got {self.window_weight}")
        if not 0 <= self.lost_threshold <= 1:
            raise ValueError(f"lost_threshold must be in [0, 1]; got {self.lost_threshold}")
        if self.reference_rule not in REFERENCE_RULES:
            raise ValueError(
                f"reference_rule must be one of {', '.join(REFERENCE_RULES)}; "
                f"got {self.reference_rule!r}"
            )
        if self.buffer_frames < 8:
            raise ValueError(f"buffer_frames must be at least 8; got {self.buffer_frames}")


@dataclass(frozen=True)
class CheckpointConfig:
    """What the metadata of a weight file say of its network and of the tracker around it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass(frozen=True)
class SyntheticConfig:
    """What the synthetic tracks are made of; see ``training/synthetic.py``."""

    images: str = "train_images"
    """Folder of photographs (jpg, png), read once into memory."""
    masks: str | None = None
    """Folder of 8-bit label maps, ``<stem>.png`` for some photographs; None for shapes only."""
    max_images: int | None = None
    """Read at most so many photographs (evenly spread over the sorted names)."""
    image_side: int = 256
    """Photographs are kept stretched to a square of this side, px; their aspect is remembered."""
    patch_side: int = 64
    """Cut-outs are kept at this side, px."""
    segment_share: float = 0.6
    """Share of targets that are a segment of a label map; the others are random closed shapes."""
    in_place_share: float = 0.3
    """Share of targets without limbs left in place in their photograph (the camera moves)."""
    motion: float = 1.0
    """Factor on all motion between the time points: place, scale, aspect, turn, deformation."""
    limb_share: float = 0.0
    """Share of targets with two limbs that swing about their joints."""
    turn_share: float = 0.0
    """Share of targets of which another side comes into view over time; of a segment left in its
    photograph, a part is covered in the template."""
    box_slack: float = 0.0
    """How far the sides of a box are from the target's outline at most, as a standard deviation
    in target sides; it stays over a track, as users' boxes are loose, tight or about a part."""
    scale_jitter: float = 0.25
    """Standard deviation of the logarithm of the scale of a search crop, per axis."""
    translation_jitter: float = 1.5
    """Largest shift of a search crop from the target, in mean target sides."""
    absent_share: float = 0.0
    """Share of search crops without the target: removed, covered, or looked for elsewhere."""
    reference_jitter: float = 0.04
    """Standard deviation of the error of the later references' boxes, in target sides."""
    astray_share: float = 0.0
    """Share of later references that are off by ten times as much, as after a mistake."""
    repeat_share: float = 0.0
    """Share of tracks whose second reference is the template again, as where nothing else has
    been seen yet, or under the reference rule ``template_twice``."""
    endless_share: float = 0.0
    """Share of pasted targets whose background goes on, mirrored, beyond its photograph."""
    distractor_share: float = 0.7
    """Share of tracks with a second object near the target."""
    likeness_share: float = 0.0
    """Share of these objects that are the target once more, tinted and in another pose."""
    occluder_share: float = 0.3
    """Share of tracks with an object passing in front of the target."""
    blur_share: float = 0.4
    """Share of crops blurred, mostly along one direction."""
    blur: float = 2.5
    """Largest standard deviation of the blur along its direction, px."""
    coarse_share: float = 0.0
    """Share of tracks seen at a lower resolution, down to a quarter."""
    grey_share: float = 0.15
    """Share of tracks without colour."""
    colour_jitter: float = 0.3
    """Range of random gain and offset of light and colour, per track; a third of it per frame."""
    flicker_share: float = 0.0
    """Share of tracks whose light changes as much from frame to frame as from track to track."""
    switch_share: float = 0.0
    """Share of tracks with a lamp that is on in some frames and off in others."""
    noise: float = 0.04
    """Largest standard deviation of the pixel noise, for intensities in 0..1."""
    grain: float = 1.0
    """Size of the grains of the noise at most, px of the crop."""

    def __post_init__(self) -> None:
        for name in ("segment_share", "in_place_share", "limb_share", "turn_share", "absent_share",
                     "astray_share", "repeat_share", "endless_share", "distractor_share",
                     "likeness_share", "occluder_share", "blur_share", "coarse_share",
                     "grey_share", "flicker_share", "switch_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        for name in ("motion", "scale_jitter", "translation_jitter", "reference_jitter",
                     "blur", "colour_jitter", "noise"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}")
        if not 0.0 <= self.box_slack <= 0.3:
            raise ValueError(f"box_slack must be in 0..0.3, got {self.box_slack}")
        if not 1.0 <= self.grain < float("inf"):
            raise ValueError(f"grain must be finite and >= 1, got {self.grain}")
        for name in ("image_side", "patch_side"):
            if getattr(self, name) < 16 or getattr(self, name) % 2:
                raise ValueError(f"{name} must be even and >= 16, got {getattr(self, name)}")
        if self.max_images is not None and self.max_images < 2:
            raise ValueError(f"max_images must be >= 2, got {self.max_images}")


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset of real videos or stills; ``data/catalog.py`` opens it."""

    name: str
    """lasot, trackingnet, got10k, coco, vasttrack, mot, or folder for layouts of your own."""
    root: str
    """Folder of the dataset, as its archives unpack."""
    split: str = "train"
    """Part of it; TrackingNet: also ``train:0-3``. ``folder`` takes all there is."""
    exclude: str | None = None
    """Text file of sequences to leave out, one name a line: for GOT-10k, those VOT tests with."""
    weight: float = 1.0
    """Share of the samples, relative to the other datasets."""

    def __post_init__(self) -> None:
        names = ("lasot", "trackingnet", "got10k", "coco", "vasttrack", "mot", "folder")
        if self.name not in names:
            raise ValueError(f"name of a dataset must be one of {names}, got {self.name!r}")
        for name in ("root", "split"):
            if not getattr(self, name):
                raise ValueError(f"{name} of dataset {self.name} must not be empty")
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(f"weight must be finite and > 0, got {self.weight}")


@dataclass(frozen=True)
class VideoConfig:
    """What the samples of real tracks are made of, as published; see ``training/dataset.py``."""

    datasets: tuple[DatasetConfig, ...] = ()
    """Where the tracks come from."""
    reference_gap: int = 200
    """Largest distance, in frames, of two references from the base frame."""
    search_gap: int = 400
    """Largest distance, in frames, of the searches from the references."""
    reverse: float = 0.5
    """Share of samples with the time reversed."""
    scale_jitter: float = 0.25
    """Standard deviation of the logarithm of the scale of a search crop, per axis."""
    translation_jitter: float = 3.0
    """Largest shift of a search crop from the target, in mean target sides."""
    min_side: float = 10.0
    """Least width and height of what a search crop shows of the target, px of the crop."""
    flip: float = 0.5
    """Share of crops that are mirrored."""
    colour_jitter: float = 0.4
    """Range of brightness, contrast and saturation about 1, per crop; 0: none."""
    shared: bool = True
    """One of grey, solarise and blur for all crops of a sample together."""
    absent_share: float = 0.0
    """Share of samples with the target absent from the last search, where their track has such
    frames (published: none)."""

    def __post_init__(self) -> None:
        for name in ("reverse", "flip", "absent_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        for name, least in (("reference_gap", 1), ("search_gap", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}")
        for name in ("scale_jitter", "translation_jitter", "min_side"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}")
        if not 0.0 <= self.colour_jitter <= 1.0:
            raise ValueError(f"colour_jitter must be in 0..1, got {self.colour_jitter}")


@dataclass(frozen=True)
class TrainConfig:
    """One training run; see ``training/trainer.py``."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network; left out, it is that of `start_from`, if that is given."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """How it is used, crops above all; likewise."""
    data: str = "synthetic"
    """Where samples come from: synthetic (the section of that name), videos (likewise) or mixed,
    both in every batch."""
    video_share: float = 0.25
    """Share of real tracks in a mixed batch, rounded to whole tracks."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    videos: VideoConfig = field(default_factory=VideoConfig)
    validation: DatasetConfig | None = None
    """Sequences to validate on by tracking them; None: synthetic tracks, for synthetic and mixed
    data."""
    output: str = "runs/train"
    """Folder of the run: config.yaml, log.csv, checkpoint.pt, weights, best weights, curves."""

    start_from: str | None = None
    """Weights to start from: a bundled name or a checkpoint's path; None: from random."""
    trunk: str | None = None
    """Trunk: a file (see docs/weights.md), or pretrained for timm's, from the hub; None: random,
    or the one of start_from."""
    trained: str = "all"
    """Which parameters learn: all, or adapters, the published set, on a trunk that stays."""

    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    devices: int = 1
    """Processes on each computer: one for each GPU, or on a CPU for so many of its cores."""
    nodes: int = 1
    """Computers; torchrun or Slurm starts the processes on each."""
    strategy: str = "ddp"
    """What several processes share: ddp, gradients; fsdp, parameters and optimiser as well."""
    precision: str = "float32"
    """Of the network's products: float32, bfloat16 or float16 (GPU only); all else is float32."""
    compile: bool = False
    """Let torch.compile fuse the step: minutes at the start, for faster steps on a GPU."""
    checkpoint_blocks: bool = False
    """Compute every block twice instead of keeping what is inside it: less memory, more time."""
    seed: int = 0
    """Seed of the parameters and of every batch."""
    steps: int = 10_000
    """Optimiser steps of the whole run."""
    batch_size: int = 32
    """Tracks per step, over all processes; a track is three references and its searches."""
    searches: int = 2
    """Search regions of a track; the state token goes from each to the next (published: 2)."""
    accumulate: int = 1
    """Passes that a step is cut into, for a batch larger than the memory."""
    workers: int = 2
    """Processes per training process that read and crop videos; 0: itself does."""

    optimizer: str = "adamw"
    """``adamw`` (published), or ``muon`` for the maps of the blocks and AdamW for the rest."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises from warmup_lr to its peak."""
    warmup_lr: float = 0.0
    """Learning rate at the start."""
    anneal: str = "steps"
    """What the cosine follows: steps done of `steps`, or time used of `time_limit_min`."""
    weight_decay: float = 0.1
    """Decay of matrices; 1-D parameters and embeddings get none."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    hard_target_steps: int = 0
    """Steps in which positive cells get the score target 1 in place of their IoU."""
    score_weight: float = 1.0
    """Weight of the score term."""
    box_weight: float = 1.0
    """Weight of the box term."""
    early_box_weight: float = 1.0
    """Factor on the box term in the first `early_steps` steps."""
    early_steps: int = 0
    """Steps with `early_box_weight`."""
    ema_decay: float = 0.0
    """Decay of a running mean of the weights, which is then what is saved; 0: the last weights."""

    log_every: int = 20
    """Steps between lines of log.csv."""
    validation_every: int = 500
    """Steps between validations."""
    validation_samples: int = 256
    """Tracks of a validation, at most; always the same ones."""
    validation_frames: int = 200
    """Frames of each sequence of `validation`, at most."""
    patience: int | None = None
    """Stop after so many validations without a better one; None: never."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    time_limit_min: float | None = None
    """Minutes of the whole run, over all resumptions; it then ends as after its last step."""
    weights_precision: str = "float32"
    """Of the maps in the weight files: float32, bfloat16 or float16."""

    def __post_init__(self) -> None:
        choices = {"data": ("synthetic", "videos", "mixed"), "strategy": ("ddp", "fsdp"),
                   "precision": ("float32", "bfloat16", "float16"),
                   "weights_precision": ("float32", "bfloat16", "float16"),
                   "optimizer": ("adamw", "muon"), "anneal": ("steps", "time"),
                   "trained": ("all", "adapters")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name in ("devices", "nodes", "steps", "batch_size", "searches", "accumulate",
                     "log_every", "validation_every", "validation_samples", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.validation_frames < 2:
            raise ValueError(f"validation_frames must be >= 2, got {self.validation_frames}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be >= 1, got {self.patience}")
        if not 0.0 < self.video_share < 1.0:
            raise ValueError(f"video_share must be above 0 and below 1, got {self.video_share}")
        for name in ("lr", "clip_norm"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and > 0, got {getattr(self, name)}")
        for name in ("min_lr", "warmup_lr", "weight_decay", "warmup_steps", "hard_target_steps",
                     "score_weight", "box_weight", "early_box_weight", "early_steps", "workers"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}")
        parts = self.devices * self.nodes * self.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {parts}: devices "
                f"{self.devices}, nodes {self.nodes}, accumulate {self.accumulate}"
            )
        if self.trained == "adapters" and self.trunk is None and self.start_from is None:
            raise ValueError("trained: adapters needs trunk or start_from: what they go on stays")
        if self.patience is not None and self.data == "videos" and self.validation is None:
            raise ValueError("patience needs validation, which names no dataset")
        real = round(self.batch_size * self.video_share)
        if self.data == "mixed" and (not 0 < real < self.batch_size or real % parts):
            raise ValueError(
                f"video_share {self.video_share} of batch_size {self.batch_size} is {real} real "
                f"tracks: there must be some of each kind, and a multiple of the {parts} parts"
            )
        if self.data != "synthetic" and self.videos.search_gap < self.searches:
            raise ValueError(
                f"videos.search_gap {self.videos.search_gap} is too few frames for "
                f"{self.searches} searches"
            )
        if self.data != "synthetic" and not self.videos.datasets:
            raise ValueError(f"data: {self.data} needs videos.datasets, which names none")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must be in 0..1 (1 excluded), got {self.ema_decay}")
        if self.time_limit_min is not None and not self.time_limit_min > 0.0:
            raise ValueError(f"time_limit_min must be > 0, got {self.time_limit_min}")
        if self.optimizer == "muon" and self.strategy == "fsdp":
            raise ValueError("optimizer: muon needs whole matrices; strategy: fsdp parts them")
        if self.anneal == "time" and self.time_limit_min is None:
            raise ValueError("anneal: time needs time_limit_min, which is not set")

    @property
    def video_tracks(self) -> int:
        """Real tracks in each of the parts that a batch is computed in; the others are made."""
        share = {"synthetic": 0.0, "videos": 1.0}.get(self.data, self.video_share)
        parts = self.devices * self.nodes * self.accumulate
        return round(self.batch_size * share) // parts


def load_yaml(path: str | Path, cls: type[T], overrides: typing.Sequence[str] = ()) -> T:
    """Read ``path`` into the dataclass ``cls``; ``overrides`` are ``key=value``, dotted if nested.

    Raises ``FileNotFoundError`` without the file, and ``ValueError`` for an unknown key, a value
    of the wrong type, a malformed override or YAML that does not parse.
    """
    return from_dict(cls, read_yaml(path, overrides))


def read_yaml(path: str | Path, overrides: typing.Sequence[str] = ()) -> dict[str, Any]:
    """Keys and values of ``path`` with ``overrides``, for ``from_dict``; errors as above."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path} must hold keys and values; got {type(tree).__name__}")
    override(tree, overrides)
    return tree


def override(tree: dict[str, Any], overrides: typing.Sequence[str]) -> None:
    """Put every ``key=value`` of ``overrides`` into ``tree``; keys are dotted, values YAML.

    Raises ``ValueError`` for an override that is malformed or goes through a value.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"an override is key=value; got {text!r}")
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ValueError(f"override {text!r}: {parent} holds no keys")
        try:
            node[leaf] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"override {text!r} has a value that is not YAML") from None


def from_dict(cls: type[T], tree: dict[str, Any], where: str = "") -> T:
    """Build the dataclass ``cls`` from plain values, as found in YAML or JSON.

    Raises ``ValueError`` naming the key for unknown keys and values of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in set(tree) - known)
    if unknown:
        place = f" under {where.rstrip('.')}" if where else ""
        raise ValueError(
            f"unknown key {unknown[0]!r}{place}; {cls.__name__} knows {', '.join(sorted(known))}"
        )
    for each in dataclasses.fields(cls):  # type: ignore[arg-type]
        optional = each.default is not dataclasses.MISSING or each.default_factory is not (
            dataclasses.MISSING
        )
        if not optional and each.name not in tree:
            raise ValueError(f"{where.rstrip('.') or cls.__name__} needs {each.name}")
    values = {key: _value(hints[key], value, where + key) for key, value in tree.items()}
    return cls(**values)


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values; ``from_dict`` is the inverse."""
    return dataclasses.asdict(config)


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``hint``, or ``ValueError`` naming the key ``where``."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = next(a for a in arguments if a is not type(None))
        return _value(inner, value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, where + ".")
    if origin is tuple and isinstance(value, list | tuple):
        inner_hints = (
            [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        )
        if len(inner_hints) == len(value):
            return tuple(_value(h, v, where) for h, v in zip(inner_hints, value, strict=True))
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as text
        except ValueError:
            pass
    plain = origin is None and isinstance(hint, type)  # tuple[int, int] is a type to Python 3.10
    if plain and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise ValueError(f"{where} must be {name or hint}; got {value!r}")
