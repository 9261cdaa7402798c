"""Settings of the network, of the tracker around it, and of a dataset.

The builders unpack them: a part of the network gets plain numbers, never a class of settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from spmtrack_core.settings import Settings, check_setting, setting

ADAPTABLE = ("q", "k", "v", "proj", "fc1", "fc2")
"""Linear layers of a block that can have experts."""
REFERENCE_RULES = ("half_segments", "thirds", "template_twice")
"""How reference frames are chosen; see ``tracking/references.py``."""


@dataclass(frozen=True)
class ModelConfig(Settings):
    """Numbers of one network. The defaults are SPMTrack-B at 378 px."""

    trunk: str = "vit_base_patch14_dinov2"
    """A timm model name, or ``explicit`` to build a ViT from the six numbers below."""
    embed_dim: int = setting(768, minimum=1)
    """Width C of a token (explicit trunks only, as are the next five)."""
    depth: int = setting(12, minimum=1)
    """Number of blocks."""
    num_heads: int = setting(12, minimum=1)
    """Attention heads; must divide ``embed_dim``."""
    mlp_hidden: int = setting(3072, minimum=1)
    """Width inside the FFN, after the gate for ``swiglu``."""
    ffn: str = setting("mlp", choices=("mlp", "swiglu"))
    """``mlp`` (two linear layers, GELU) or ``swiglu`` (packed gate and value, SiLU)."""
    patch_size: int = setting(14, minimum=1)
    """Side of a patch in pixels; every trunk, template and search size must fit it."""
    stem: str = setting("patch", choices=("patch", "conv", "mobilenetv2"))
    """``patch`` (one strided convolution); for explicit trunks also ``conv`` (3x3 stride-2
    convolutions) or ``mobilenetv2`` (the first 14 layers of a MobileNetV2, 16 px patches)."""
    separate_references: bool = False
    """Each reference frame attends to itself alone, so that its keys and values are computed once,
    when the frame is stored. Published: every token attends to every token."""
    template_hw: tuple[int, int] = setting((196, 196), minimum=1)
    """Height and width of a reference frame crop in pixels."""
    search_hw: tuple[int, int] = setting((378, 378), minimum=1)
    """Height and width of the search region in pixels."""
    rank: int = setting(64, minimum=1)
    """Width r of an expert."""
    alpha: float = setting(64.0, above=0)
    """Expert scale: ``alpha / rank``, or ``alpha / sqrt(rank)`` with ``rs_scaling``."""
    experts: int = setting(4, minimum=1)
    """Routed experts E of every linear layer."""
    rs_scaling: bool = False
    """Scale experts by the square root of the rank (rsLoRA)."""
    shared_expert: bool = False
    """One more expert that is always on; excludes ``expert_compressors``."""
    expert_compressors: bool = False
    """A down-projection of its own for every expert instead of one for all."""
    adapted: tuple[str, ...] = ADAPTABLE
    """Linear layers with experts, in every block."""
    drop_path: float = setting(0.0, minimum=0, below=1)
    """Stochastic depth rate, the same for all blocks; training only."""
    swapped_positions: bool = False
    """Resample the trunk's position table with width and height swapped, as the published code
    does; only for weights with a search grid that is not square and that were trained so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("adapted", self.adapted, ADAPTABLE)
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide {self.embed_dim}")
        if self.stem == "conv":
            power = self.patch_size > 1 and self.patch_size & (self.patch_size - 1) == 0
            if not (power and self.embed_dim >= self.patch_size):
                raise ValueError(
                    "a conv stem needs a patch_size that is a power of two, and an embed_dim of "
                    f"at least as much; got {self.patch_size} and {self.embed_dim}"
                )
        if self.stem == "mobilenetv2" and self.patch_size != 16:
            raise ValueError(f"a mobilenetv2 stem needs patch_size 16; got {self.patch_size}")
        if self.stem != "patch" and self.trunk != "explicit":
            raise ValueError(f"a {self.stem} stem needs trunk: explicit; got {self.trunk!r}")
        if self.shared_expert and self.expert_compressors:
            raise ValueError("shared_expert and expert_compressors exclude each other")
        for name in ("template_hw", "search_hw"):
            size_hw = getattr(self, name)
            if any(side % self.patch_size for side in size_hw):
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


@dataclass(frozen=True)
class TrackerConfig(Settings):
    """How the tracker uses the network. The defaults are the published ones."""

    policy: str = setting("weights", choices=("weights", "published"))
    """``weights``: the settings below. ``published``: what they say of the window, of boxes, of
    reference frames and of recovery gives way to the published behavior; see :meth:`in_force`."""
    template_area_factor: float = setting(2.0, minimum=1)
    """Context of a reference frame crop (SiamFC rule)."""
    search_area_factor: float = setting(5.0, minimum=1)
    """Context of the search region."""
    min_side: float = setting(10.0, minimum=0)
    """Smallest box side, in frame pixels, that the search region is scaled by."""
    window_weight: float = setting(0.45, minimum=0, maximum=1)
    """Share of the Hann window in the choice of the cell."""
    box_overlap: float = setting(1.0, above=0, maximum=1)
    """The boxes of all cells that overlap the chosen one by this IoU are averaged, weighted by
    their scores. Published: 1, the box of the chosen cell alone."""
    reference_rule: str = setting("half_segments", choices=REFERENCE_RULES)
    """``half_segments``, ``thirds`` (published for the LaSOT test set at 378 px) or
    ``template_twice``, for networks too weak to trust their own predictions."""
    reference_stride: int = setting(1, minimum=1)
    """Frames from one stored reference frame to the next, while the buffer is not full: 2 saves
    every second frame the encoding. Published: 1."""
    reference_min_confidence: float = setting(0.0, minimum=0, maximum=1)
    """Confidence from which on a frame may become a reference frame. Published: 0, every frame."""
    buffer_frames: int = setting(128, minimum=8)
    """Reference crops kept; longer videos keep every 2nd, 4th, 8th ... frame."""
    exact_frames: int = setting(0, minimum=0)
    """Length of the video in frames, for a buffer with exactly the frames that the rule chooses,
    as the published evaluation has it; 0: a buffer of ``buffer_frames``, for any length."""
    lost_threshold: float = setting(0.2, minimum=0, maximum=1)
    """Average confidence below which a target counts as lost."""
    found_margin: float = setting(0.2, minimum=0, maximum=1)
    """Part of the way from ``lost_threshold`` to 1 that the average confidence of a lost target
    must reach to count as found again."""
    confidence_weight: float = setting(0.5, minimum=0.01, maximum=1)
    """Weight of the newest frame in the average confidence; 1: no average."""
    recovery: str = setting("none", choices=("none", "scan"))
    """What happens while a target is lost. ``none`` (published): the search goes on at its last
    box. ``scan``: each frame after the loss also searches one more region, see
    ``tracking/recovery.py``, and adds no reference frame."""
    recovery_threshold: float = setting(0.6, minimum=0, maximum=1)
    """Confidence, compared with the template alone, from which a box in such a region becomes the
    place to search. The target stays lost until its average confidence has risen there."""

    def in_force(self) -> TrackerConfig:
        """These settings, or by ``policy: published`` the published ones in their place.

        Crops keep the areas that the network was trained with.

        >>> config = TrackerConfig("published", reference_rule="template_twice", recovery="scan")
        >>> config.in_force() == TrackerConfig("published")
        True
        """
        if self.policy != "published":
            return self
        published = TrackerConfig()
        rules = {published.reference_rule, "thirds"}
        return replace(
            self,
            window_weight=published.window_weight,
            box_overlap=published.box_overlap,
            reference_rule=self.reference_rule
            if self.reference_rule in rules
            else published.reference_rule,
            reference_stride=published.reference_stride,
            reference_min_confidence=published.reference_min_confidence,
            recovery=published.recovery,
        )


@dataclass(frozen=True)
class CheckpointConfig(Settings):
    """Settings stored in a checkpoint: network and tracker."""

    model: ModelConfig = field(default_factory=ModelConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass(frozen=True)
class DatasetConfig(Settings):
    """One dataset of real videos or stills; ``data/catalog.py`` opens it."""

    name: str
    """A name of ``data.catalog.READERS``, such as lasot; ``folder`` is for clips of your own."""
    root: str
    """Folder of the dataset, as unpacked from its archives."""
    split: str = "train"
    """Part of the dataset; TrackingNet: also ``train:0-3``. ``folder`` has no splits."""
    exclude: str | None = None
    """Text file of sequences to leave out, one name a line; for GOT-10k, those that VOT uses."""
    only: str | None = None
    """Text file of the sequences to use, one name a line: those that another run excludes."""
    weight: float = setting(1.0, above=0)
    """Share of the samples, relative to the other datasets."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("name", "root", "split"):
            if not getattr(self, name):
                raise ValueError(f"{name} of dataset {self.name} must not be empty")
