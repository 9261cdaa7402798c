"""Settings of a training run and of its samples.

Sections of the YAML file of a run: ``model``, ``tracker`` (see ``config.py``), ``synthetic``,
``videos``; everything else stands at its top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from spmtrack_core.config import DatasetConfig, ModelConfig, TrackerConfig
from spmtrack_core.settings import Settings, setting

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class SyntheticConfig(Settings):
    """What the synthetic tracks are made of; see ``training/synthetic.py``."""

    images: str = "train_images"
    """Folder of photographs (jpg, png), read once into memory."""
    masks: str | None = None
    """Folder of 8-bit label maps, ``<stem>.png`` for some photographs; None for shapes only."""
    max_images: int | None = setting(None, minimum=2)
    """Read at most so many photographs (evenly spread over the sorted names)."""
    image_side: int = setting(256, minimum=16)
    """Photographs are kept stretched to a square of this side, px; their aspect is remembered."""
    patch_side: int = setting(64, minimum=16)
    """Cut-outs are kept at this side, px."""
    segment_share: float = setting(0.6, minimum=0, maximum=1)
    """Share of targets that are a segment of a label map; the others are random closed shapes."""
    in_place_share: float = setting(0.3, minimum=0, maximum=1)
    """Share of targets without limbs left in place in their photograph (the camera moves)."""
    motion: float = setting(1.0, minimum=0)
    """Factor on all motion between the time points: place, scale, aspect, turn, deformation."""
    limb_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of targets with two limbs that swing about their joints."""
    turn_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of targets of which another side comes into view over time; of a segment left in its
    photograph, a part is covered in the template."""
    box_slack: float = setting(0.0, minimum=0, maximum=0.3)
    """How far the sides of a box are from the target's outline at most, as a standard deviation
    in target sides; it stays over a track, as users' boxes are loose, tight or about a part."""
    scale_jitter: float = setting(0.25, minimum=0)
    """Standard deviation of the logarithm of the scale of a search crop, per axis."""
    translation_jitter: float = setting(1.5, minimum=0)
    """Largest shift of a search crop from the target, in mean target sides."""
    absent_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of search crops without the target: removed, covered, or looked for elsewhere."""
    reference_jitter: float = setting(0.04, minimum=0)
    """Standard deviation of the error of the later references' boxes, in target sides."""
    astray_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of later references that are off by ten times as much, as after a mistake."""
    repeat_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks whose second reference is the template again, as where nothing else has
    been seen yet, or under the reference rule ``template_twice``."""
    endless_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of pasted targets whose background goes on, mirrored, beyond its photograph."""
    distractor_share: float = setting(0.7, minimum=0, maximum=1)
    """Share of tracks with a second object near the target."""
    likeness_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of these objects that are the target once more, tinted and in another pose."""
    occluder_share: float = setting(0.3, minimum=0, maximum=1)
    """Share of tracks with an object passing in front of the target."""
    blur_share: float = setting(0.4, minimum=0, maximum=1)
    """Share of crops blurred, mostly along one direction."""
    blur: float = setting(2.5, minimum=0)
    """Largest standard deviation of the blur along its direction, px."""
    coarse_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks seen at a lower resolution, down to a quarter."""
    gray_share: float = setting(0.15, minimum=0, maximum=1)
    """Share of tracks without colour."""
    color_jitter: float = setting(0.3, minimum=0)
    """Range of random gain and offset of light and colour, per track; a third of it per frame."""
    flicker_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks whose light changes as much from frame to frame as from track to track."""
    switch_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks with a lamp that is on in some frames and off in others."""
    noise: float = setting(0.04, minimum=0)
    """Largest standard deviation of the pixel noise, for intensities in 0..1."""
    grain: float = setting(1.0, minimum=1)
    """Size of the grains of the noise at most, px of the crop."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "colour_jitter": "color_jitter",
        "grey_share": "gray_share",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("image_side", "patch_side"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name} must be even; got {getattr(self, name)}")


@dataclass(frozen=True)
class VideoConfig(Settings):
    """What the samples of real tracks are made of, as published; see ``training/dataset.py``."""

    datasets: tuple[DatasetConfig, ...] = ()
    """Where the tracks come from."""
    reference_gap: int = setting(200, minimum=1)
    """Largest distance, in frames, of two references from the base frame."""
    search_gap: int = setting(400, minimum=2)
    """Largest distance, in frames, of the searches from the references."""
    reverse: float = setting(0.5, minimum=0, maximum=1)
    """Share of samples with the time reversed."""
    scale_jitter: float = setting(0.25, minimum=0)
    """Standard deviation of the logarithm of the scale of a search crop, per axis."""
    translation_jitter: float = setting(3.0, minimum=0)
    """Largest shift of a search crop from the target, in mean target sides."""
    min_side: float = setting(10.0, minimum=0)
    """Least width and height of what a search crop shows of the target, px of the crop."""
    flip: float = setting(0.5, minimum=0, maximum=1)
    """Share of crops that are mirrored."""
    color_jitter: float = setting(0.4, minimum=0, maximum=1)
    """Range of brightness, contrast and saturation about 1, per crop; 0: none."""
    shared: bool = True
    """One of grey, solarise and blur for all crops of a sample together."""
    absent_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of samples with the target absent from the last search, where their track has such
    frames (published: none)."""

    RENAMED: ClassVar[Mapping[str, str]] = {"colour_jitter": "color_jitter"}


@dataclass(frozen=True)
class TrainConfig(Settings):
    """One training run; see ``training/trainer.py``."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The network; left out, it is that of `start_from`, if that is given."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """How it is used, crops above all; likewise."""
    data: str = setting("synthetic", choices=("synthetic", "videos", "mixed"))
    """Where samples come from: synthetic (the section of that name), videos (likewise) or mixed,
    both in every batch."""
    video_share: float = setting(0.25, above=0, below=1)
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
    trained: str = setting("all", choices=("all", "adapters"))
    """Which parameters learn: all, or adapters, the published set, on a trunk that stays."""

    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    devices: int = setting(1, minimum=1)
    """Processes on each computer: one for each GPU, or on a CPU for so many of its cores."""
    nodes: int = setting(1, minimum=1)
    """Computers; torchrun or Slurm starts the processes on each."""
    strategy: str = setting("ddp", choices=("ddp", "fsdp"))
    """What several processes share: ddp, gradients; fsdp, parameters and optimiser as well."""
    precision: str = setting("float32", choices=PRECISIONS)
    """Of the network's products: float32, bfloat16 or float16 (GPU only); all else is float32."""
    compile: bool = False
    """Let torch.compile fuse the step: minutes at the start, for faster steps on a GPU."""
    checkpoint_blocks: bool = False
    """Compute every block twice instead of keeping what is inside it: less memory, more time."""
    seed: int = 0
    """Seed of the parameters and of every batch."""
    steps: int = setting(10_000, minimum=1)
    """Optimiser steps of the whole run."""
    batch_size: int = setting(32, minimum=1)
    """Tracks per step, over all processes; a track is three references and its searches."""
    searches: int = setting(2, minimum=1)
    """Search regions of a track; the state token goes from each to the next (published: 2)."""
    accumulate: int = setting(1, minimum=1)
    """Passes that a step is cut into, for a batch larger than the memory."""
    workers: int = setting(2, minimum=0)
    """Processes per training process that read and crop videos; 0: itself does."""

    optimizer: str = setting("adamw", choices=("adamw", "muon"))
    """``adamw`` (published), or ``muon`` for the maps of the blocks and AdamW for the rest."""
    lr: float = setting(1e-3, above=0)
    """Peak learning rate of AdamW."""
    min_lr: float = setting(1e-6, minimum=0)
    """Learning rate at the end of the cosine."""
    warmup_steps: int = setting(200, minimum=0)
    """Steps over which the learning rate rises from warmup_lr to its peak."""
    warmup_lr: float = setting(0.0, minimum=0)
    """Learning rate at the start."""
    anneal: str = setting("steps", choices=("steps", "time"))
    """What the cosine follows: steps done of `steps`, or time used of `time_limit_min`."""
    weight_decay: float = setting(0.1, minimum=0)
    """Decay of matrices; 1-D parameters and embeddings get none."""
    clip_norm: float = setting(1.0, above=0)
    """Largest gradient norm."""
    hard_target_steps: int = setting(0, minimum=0)
    """Steps in which positive cells get the score target 1 in place of their IoU."""
    score_weight: float = setting(1.0, minimum=0)
    """Weight of the score term."""
    box_weight: float = setting(1.0, minimum=0)
    """Weight of the box term."""
    early_box_weight: float = setting(1.0, minimum=0)
    """Factor on the box term in the first `early_steps` steps."""
    early_steps: int = setting(0, minimum=0)
    """Steps with `early_box_weight`."""
    ema_decay: float = setting(0.0, minimum=0, below=1)
    """Decay of a running mean of the weights, which is then what is saved; 0: the last weights."""

    log_every: int = setting(20, minimum=1)
    """Steps between lines of log.csv."""
    validation_every: int = setting(500, minimum=1)
    """Steps between validations."""
    validation_samples: int = setting(256, minimum=1)
    """Tracks of a validation, at most; always the same ones."""
    validation_frames: int = setting(200, minimum=2)
    """Frames of each sequence of `validation`, at most."""
    patience: int | None = setting(None, minimum=1)
    """Stop after so many validations without a better one; None: never."""
    checkpoint_every: int = setting(500, minimum=1)
    """Steps between checkpoints."""
    time_limit_min: float | None = setting(None, above=0)
    """Minutes of the whole run, over all resumptions; it then ends as after its last step."""
    weights_precision: str = setting("float32", choices=PRECISIONS)
    """Of the maps in the weight files: float32, bfloat16 or float16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = self.devices * self.nodes * self.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {parts}: devices "
                f"{self.devices}, nodes {self.nodes}, accumulate {self.accumulate}"
            )
        if self.trained == "adapters" and self.trunk is None and self.start_from is None:
            raise ValueError("trained: adapters needs trunk or start_from; got neither")
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
