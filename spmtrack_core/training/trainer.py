"""The trainer, to be read downwards: devices, data, parameters, loop, files of the run.

    spmtrack train recipes/spmtrack_b.yaml                       # a run
    spmtrack train recipes/spmtrack_b.yaml --dry-run             # two steps: memory and speed
    spmtrack train recipes/spmtrack_b.yaml --resume              # go on after an interruption
    spmtrack train recipes/spmtrack_b.yaml --time-limit 230      # end before a queue does
    spmtrack train recipes/spmtrack_b.yaml devices=8             # every GPU of this computer
    torchrun --nnodes 2 --nproc-per-node 8 ... $(which spmtrack) train ... devices=8 nodes=2

The folder of a run holds ``config.yaml`` (what it was really run with), ``log.csv`` and events for
TensorBoard, ``checkpoint.pt`` (everything needed to go on exactly), ``weights.safetensors`` (what
``load_tracker`` reads), ``best.safetensors`` and ``curves.png``.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import resource
import subprocess
import time
import warnings
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from spmtrack_core.data.catalog import open_tracks
from spmtrack_core.data.sequence import FrameSequence
from spmtrack_core.data.tracks import Tracks
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.boxes import Boxes
from spmtrack_core.model.spmtrack import SPMTrack, build_spmtrack, trainable_names
from spmtrack_core.model.trunk import resample_positions
from spmtrack_core.model.weights import (
    PRECISIONS,
    Checkpoint,
    in_precision,
    load_checkpoint,
    read_trunk,
    save_checkpoint,
)
from spmtrack_core.settings import from_dict, read_yaml, to_dict
from spmtrack_core.tracking.loading import choose_device, find_weights
from spmtrack_core.tracking.tracker import Tracker
from spmtrack_core.training.batch import Batch
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.dataset import VideoTracks, loader
from spmtrack_core.training.optim import Mean, adamw, learning_rate, muon
from spmtrack_core.training.runlog import Log, Meter, plot, progress_bar, summary
from spmtrack_core.training.step import TrackingStep, positive_cells
from spmtrack_core.training.stills import Stills, read_stills
from spmtrack_core.training.synthetic import SyntheticTracks
from spmtrack_core.training.validate import validate_batches, validate_sequences

MAY_CHANGE = {"output", "device", "time_limit_min", "log_every", "workers", "compile",
              "devices", "nodes", "accumulate",
              "validation_every", "checkpoint_every", "patience"}  # fmt: skip
"""Settings that a resumed run may change without ceasing to be the same run."""
VALIDATION_SEED = 987_654_321
VALIDATION_BATCH = 16
SKIPPED_STEPS = 50
"""Steps in a row that the scaler of float16 may skip before the run counts as diverged."""
FABRIC_PRECISION = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}

HeldOut: TypeAlias = list[FrameSequence] | SyntheticTracks | None


class TrainingDiverged(ArithmeticError):
    """Loss or gradient is not a finite number."""


def train(
    config: TrainConfig,
    resume: bool = False,
    command: str = "",
    console: Console | None = None,
    dry_run: bool = False,
    time_limit_min: float = math.inf,
) -> Path:
    """Train a network as ``config`` says; returns the path of the final weights.

    ``time_limit_min`` ends this part of the run, counted from this call, with a checkpoint that
    can be resumed. With ``dry_run`` everything is built, two steps are made and no file is
    written. Raises TrainingDiverged at the first loss or gradient that is not finite (the last
    checkpoint stays, the batch is saved), FileNotFoundError for missing data, weights or
    checkpoint, ValueError where they do not fit this run.
    """
    called = time.monotonic()
    output = Path(config.output)
    if not (resume or dry_run) and (output / "checkpoint.pt").exists():
        raise ValueError(f"{output} holds a run already: --resume it, or name another output")
    if resume:
        check_resumable(output / "checkpoint.pt", config)
    # Fabric knows from the environment which of several processes this one is
    console = Console(quiet=True) if getattr(rank_zero_only, "rank", 0) else console
    console = console or Console(stderr=True)

    # -- data, before there are other processes: what is wrong with it is said once
    datasets = open_datasets(config, console)
    sequences = validation_sequences(config)

    # -- devices: one process each; all of them run this function
    fabric = connect(config)
    rank, world, leader = fabric.global_rank, fabric.world_size, fabric.is_global_zero
    if not leader:
        console = Console(quiet=True)
    parts = world * config.accumulate
    lock = None if dry_run or not leader else hold(output)

    # -- parameters: a sharded network has its own, so the optimiser comes after it
    torch.manual_seed(config.seed)
    model, before = first_model(config, resume)
    learning_names = trainable_names(model) if config.trained == "adapters" else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learning_names is None or name in learning_names)
    model.checkpoint_blocks = config.checkpoint_blocks
    if fabric.device.type == "cpu" and config.precision == "bfloat16":
        for block in model.trunk.blocks:  # 4 times as fast backwards as the CPU's own kernel
            block.attn.fused_attn = False
    module: Any = TrackingStep(model).train()
    if config.compile:
        module = torch.compile(module)
    network = fabric.setup_module(module)
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    rule: Any = muon if config.optimizer == "muon" else adamw
    fused = fabric.device.type == "cuda"
    optimizer: Any = fabric.setup_optimizers(rule(learning, config, fused))
    mean = Mean(learning, config.ema_decay)

    # -- where to start
    step, used_min, best, stale, skipped = 0, 0.0, -math.inf, 0, 0
    if resume:
        state: dict[str, Any] = {"network": network, "optimizer": optimizer}
        state |= fabric.load(output / "checkpoint.pt", state, strict=False, weights_only=True)
        for name, value in mean.values.items():
            value.copy_(parted(state["mean"][name], value))
        step, used_min, before = state["step"], state["minutes"], state["before"]
        best, stale = state["best"], state["stale"]
        if config.precision == "float16":
            fabric.strategy.precision.load_state_dict(state["scaler"])
    first_step, steps = step, step + 2 if dry_run else config.steps

    # batch number k is a function of seed, k and rank alone
    stills = read_stills(config.synthetic, fabric.device) if config.data != "videos" else None
    batches = training_batches(config, stills, datasets, fabric, step, steps)
    held_out: HeldOut = sequences
    if held_out is None and stills is not None:
        held_out = synthetic_tracks(config, stills, VALIDATION_BATCH, VALIDATION_SEED)

    # -- files, all of the first process
    log = Log(None if dry_run or not leader else output, keep_until=step)
    if leader and not dry_run:
        settings = f"# revision {revision()}\n"
        settings += yaml.safe_dump(plain(to_dict(config)), sort_keys=False)
        write_beside(output / "config.yaml", lambda path: path.write_text(settings))
    fabric.barrier()
    started, limit = time.monotonic(), config.time_limit_min or math.inf

    def minutes() -> float:
        return used_min + (time.monotonic() - started) / 60

    def current() -> SPMTrack:
        """The network as it would be used now, whole, sharing memory with the one that learns."""
        weights = {n: whole(mean.values.get(n, t)) for n, t in model.state_dict().items()}
        with torch.device("meta"):
            copy = build_spmtrack(config.model)
        copy.load_state_dict(weights, assign=True)
        return copy

    def save_weights(name: str, weights: SPMTrack) -> None:
        if leader:
            provenance = {"command": command, **tell(config, log.rows, minutes())}
            if before:
                # a list, the last run first: one inside the other would double every quote
                earlier = json.loads(before.get("before", "[]"))
                last = {key: text for key, text in before.items() if key != "before"}
                provenance["before"] = json.dumps([last, *earlier])
            save_checkpoint(
                output / name,
                Checkpoint(weights, config.model, config.tracker, provenance),
                PRECISIONS[config.weights_precision],
                adapters_only=config.trained == "adapters" and config.trunk is not None,
            )

    def save_state() -> None:
        state = {"network": network, "optimizer": optimizer, "step": step,
                 "mean": {name: whole(value) for name, value in mean.values.items()},
                 "scaler": fabric.strategy.precision.state_dict(), "minutes": clock,
                 "best": best, "stale": stale, "before": before,
                 "config": plain(to_dict(config))}  # fmt: skip
        beside = output / ".checkpoint.pt.part"
        kept = {f"model.{name}" for name in learning}
        fabric.save(beside, state, filter={"network": lambda name, _: name in kept})
        if leader:
            os.replace(beside, output / "checkpoint.pt")

    # -- the loop
    now = torch.tensor(minutes(), device=fabric.device)
    meter, clock = Meter(), float(reduced(fabric, now, "mean"))
    with progress_bar(console) as bar:
        task = bar.add_task("training", total=1.0, note="")
        while step < steps and clock < limit:
            torch.manual_seed((config.seed * 1_000_003 + step) * world + rank)
            done = max(step / config.steps, clock / limit)
            rate = learning_rate(config, step, done if config.anneal == "time" else None)
            for group in optimizer.param_groups:
                group["lr"] = rate

            asked = time.monotonic()
            parts_of_batch = [next_batch(batches) for _ in range(config.accumulate)]
            made_s = time.monotonic() - asked
            grid_hw = config.model.search_grid_hw
            positives = torch.stack([positive_cells(part, grid_hw) for part in parts_of_batch])
            counts = reduced(fabric, positives.sum(0), "mean").clamp_min(1)  # (S,)
            early = step < config.early_steps
            sums: dict[str, Tensor] = {}
            for index, part in enumerate(parts_of_batch):
                with fabric.no_backward_sync(network, enabled=index < config.accumulate - 1):
                    terms = network(
                        part, counts, config.score_weight,
                        config.box_weight * (config.early_box_weight if early else 1.0),
                        step >= config.hard_target_steps,
                    )  # fmt: skip
                    fabric.backward(terms["loss"])
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0) + term.detach()
            sums["positive_iou"] /= config.accumulate
            norm: Any = fabric.clip_gradients(
                network, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
            )
            sums["gradient_norm"] = whole(norm)
            sums["minutes"] = torch.tensor(minutes(), device=fabric.device)
            here = (time.monotonic() - called) / 60
            sums["minutes_here"] = torch.tensor(here, device=fabric.device)
            # one read-back; the mean of the clocks, so that all processes stop after one step
            means = reduced(fabric, torch.stack([t.float() for t in sums.values()]), "mean")
            values = dict(zip(sums, means.tolist(), strict=True))
            clock, here = values.pop("minutes"), values.pop("minutes_here")
            # the scaler of float16 skips steps with infinite gradients, and is to, for a while
            finite = math.isfinite(values["gradient_norm"])
            skipped = 0 if finite or config.precision != "float16" else skipped + 1
            finite |= 0 < skipped < SKIPPED_STEPS
            if not finite or not math.isfinite(values["loss"]):
                where = output / f"bad_batch_{rank}.pt"
                parts_as_dicts = [part._asdict() for part in parts_of_batch]
                if not dry_run:
                    write_beside(where, partial(torch.save, parts_as_dicts))
                raise TrainingDiverged(
                    f"step {step} gave {values}; the batch is in {where}. Try a smaller lr than "
                    f"{config.lr:g} or precision=float32, in a new output, with "
                    f"start_from={output / 'weights.safetensors'} to keep what was learnt"
                )
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            mean.update(step)
            meter.add(values | {"made_s": made_s}, config.batch_size)

            stop = step == steps or clock >= limit or here >= time_limit_min
            bar.update(task, completed=max(step / steps, clock / limit))
            due = step % config.validation_every == 0
            validating = not dry_run and (stop or due)
            if validating or stop or step % config.log_every == 0:
                samples = step * config.batch_size
                line: dict[str, float] = {"step": step, "samples": samples, "lr": rate}
                line |= meter.read() | {"minutes": clock, "memory_gb": memory_gb(fabric.device)}
                judge = current() if validating else None
                if judge is not None:
                    # the first process speaks for all: rounding must not part their ways
                    line |= fabric.broadcast(validated(judge, held_out, config, fabric))
                log.add(line)
                score = line.get("validation_iou", -math.inf)
                if judge is not None and score > best:
                    best, stale = score, 0
                    save_weights("best.safetensors", judge)
                elif judge is not None and due:  # a stop in between is no verdict
                    stale += 1
                if config.patience is not None and stale >= config.patience:
                    bar.console.print(f"no better for {stale} validations: stopped")
                    stop = True
                meter = Meter()
                bar.update(task, note=summary(line))
                if validating or dry_run or not console.is_terminal:
                    bar.console.print(summary(line), highlight=False, soft_wrap=True)
            if not dry_run and (stop or step % config.checkpoint_every == 0):
                save_weights("weights.safetensors", current())
                save_state()
            if stop:
                break
    if dry_run:
        total = sum(p.numel() for p in model.parameters())
        console.print(
            f"{total:,} parameters, {sum(p.numel() for p in learning.values()):,} of them learn; "
            f"{world} x {config.accumulate} passes of {config.batch_size // parts} tracks a step, "
            f"{config.precision}; peak memory of a process {memory_gb(fabric.device):.2f} GB on "
            f"{fabric.device}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return output / "weights.safetensors"
    if step == first_step and not resume:
        raise ValueError(f"time_limit_min {config.time_limit_min} ended the run before a step")
    if step == first_step:
        console.print("this run has ended already: nothing was trained")
        save_weights("weights.safetensors", current())
    if leader:
        plot(log.rows, output / "curves.png")
    console.print(f"wrote {output / 'weights.safetensors'}", highlight=False, soft_wrap=True)
    if lock is not None:
        lock.close()
    return output / "weights.safetensors"


def hold(output: Path) -> IO[str]:
    """Keep other runs out of a folder, until this process ends or closes what is returned."""
    output.mkdir(parents=True, exist_ok=True)
    lock = (output / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f"another process is training in {output}") from None
    return lock


def connect(config: TrainConfig) -> Fabric:
    """The processes of the run and their devices, started where they are not yet there.

    torchrun and Slurm start them themselves; else this process starts those of its own computer.
    """
    device = choose_device(config.device)
    if device.type == "cpu" and config.precision == "float16":
        raise ValueError("precision float16 needs a GPU to train on; bfloat16 works on both")
    if device.type == "cuda" and config.devices > torch.cuda.device_count():
        raise ValueError(
            f"devices is {config.devices}, but there are {torch.cuda.device_count()} GPUs here; "
            f"devices=1 accumulate={config.devices} makes the same steps on one"
        )
    count = config.devices * config.nodes
    strategy: Any = "ddp" if count > 1 else "auto"
    if config.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            shard, data_parallel_size=count, tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )  # fmt: skip
    fabric = Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and count == 1 else config.devices,
        num_nodes=config.nodes,
        strategy=strategy,
        precision=FABRIC_PRECISION[config.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    # gradients of 1x1 convolutions, in one order of memory or another
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return fabric


def shard(network: nn.Module, mesh: Any) -> nn.Module:
    """FSDP: every block by itself, then the rest, over all processes."""
    inner: Any = network
    for block in inner.model.trunk.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])
    return network


def read_settings(path: str | Path, overrides: Collection[str], resume: bool) -> TrainConfig:
    """The settings of a run; network and tracker that they do not name are those of start_from.

    To ``resume``, those of the run itself: the weights it started from may be gone. Raises as
    ``load_yaml`` and ``load_checkpoint`` do.
    """
    tree = read_yaml(path, list(overrides))
    if tree.get("start_from") is not None:
        if resume:
            output = str(tree.get("output", TrainConfig.output))
            stored = read_state(Path(output, "checkpoint.pt"))["config"]
        else:
            # settings alone: a trunk under them is not read twice
            loaded = load_checkpoint(find_weights(str(tree["start_from"])), frozen=False)
            stored = {"model": to_dict(loaded.model_config),
                      "tracker": to_dict(loaded.tracker_config)}  # fmt: skip
        for part in ("model", "tracker"):
            tree[part] = {**stored[part], **(tree.get(part) or {})}
    return from_dict(TrainConfig, tree)


def first_model(config: TrainConfig, resume: bool) -> tuple[SPMTrack, dict[str, str]]:
    """The network that a run starts from, and the provenance of its weights where it has one.

    To ``resume``, only what stays frozen is needed: the checkpoint of the run has all the rest.
    The maps of a trunk that stays frozen are held in the precision of the run: autocast would
    round them at every step.
    """
    if config.start_from is not None and not (resume and config.trained == "all"):
        trunk = None if config.trunk == "pretrained" else config.trunk
        loaded = load_checkpoint(find_weights(config.start_from), trunk)
        theirs, crops = loaded.model_config, {"template_hw", "search_hw"}
        ours = {crop: getattr(config.model, crop) for crop in crops} | {"drop_path": 0.0}
        if replace(theirs, **ours) != replace(config.model, drop_path=0.0):
            raise ValueError(
                f"start_from {config.start_from}: its network is {theirs}, not the "
                f"{config.model} of this run"
            )
        # a network of its own: the file is not to be written into, nor its stochastic depth used
        model = build_spmtrack(config.model)
        start = loaded.model.state_dict()
        # other crops have other cells
        start["trunk.pos_embed"] = resample_positions(
            start["trunk.pos_embed"], theirs.search_grid_hw, config.model.search_grid_hw,
            config.model.swapped_positions,
        )  # fmt: skip
        model.load_state_dict(start)
        return model, dict(loaded.provenance)
    model = build_spmtrack(config.model)
    if config.trunk is not None:
        path = None if config.trunk == "pretrained" else config.trunk
        frozen = read_trunk(model, config.model, path)
        if config.trained == "adapters":
            frozen = in_precision(frozen, model, PRECISIONS[config.precision])
        model.load_state_dict(frozen, strict=False, assign=True)
    return model, {}


def open_datasets(config: TrainConfig, console: Console) -> list[Tracks]:
    """The datasets of ``videos``, with a word on each: the first time takes minutes."""
    opened = []
    for each in config.videos.datasets if config.video_tracks else ():
        console.print(f"{each.name}: looking through {each.root}", highlight=False)
        opened.append(tracks := open_tracks(each))
        left_out = f", left out {len(tracks.skipped)}:" if tracks.skipped else ""
        console.print(f"{each.name}: {len(tracks):,} tracks{left_out}", highlight=False)
        for line in tracks.skipped[:10]:
            console.print(f"    {line}", highlight=False, soft_wrap=True)
        if len(tracks.skipped) > 10:
            console.print(f"    and {len(tracks.skipped) - 10} more", highlight=False)
    return opened


def next_batch(batches: Iterator[Batch]) -> Batch:
    """The next batch; an error of a process that reads is its last line, not its traceback."""
    try:
        return next(batches)
    except (ValueError, OSError) as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from None


def synthetic_tracks(config: TrainConfig, stills: Stills, size: int, seed: int) -> SyntheticTracks:
    """Batches of ``size`` synthetic tracks on the device of ``stills``."""
    return SyntheticTracks(
        config.synthetic, config.model, config.tracker, stills, size, seed, config.searches
    )


def training_batches(
    config: TrainConfig,
    stills: Stills | None,
    datasets: list[Tracks],
    fabric: Fabric,
    step: int,
    steps: int,
) -> Iterator[Batch]:
    """The batches of this process from optimiser step ``step`` on, on its device."""
    rank, world, real = fabric.global_rank, fabric.world_size, config.video_tracks
    share, start = config.batch_size // (world * config.accumulate), step * config.accumulate
    sources: list[Iterator[Batch]] = []
    if stills is not None:
        made = synthetic_tracks(config, stills, share - real, config.seed)
        sources.append(made.batch(k * world + rank) for k in itertools.count(start))
    if real:
        videos = VideoTracks(
            config.videos, config.model, config.tracker, datasets, config.seed, config.searches
        )
        pinned = fabric.device.type == "cuda"
        stop = steps * config.accumulate
        read = loader(videos, real, config.workers, start, stop, rank, world, pin_memory=pinned)
        sources.append(
            Batch(*(t.to(fabric.device, non_blocking=pinned) for t in batch)) for batch in read
        )
    if len(sources) == 1:
        return sources[0]
    return (
        Batch(*(torch.cat(part) for part in zip(*both, strict=True)))
        for both in zip(*sources, strict=False)  # synthetic tracks have no end
    )


def first_batch(config: TrainConfig) -> Batch:
    """The first twelve tracks of a run, to be looked at."""
    share = min(max(config.video_share, 1 / 12), 11 / 12)  # something of each kind
    config = replace(
        config, batch_size=12, video_share=share, accumulate=1, devices=1, nodes=1, workers=0
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    datasets = open_datasets(config, Console(stderr=True))
    stills = read_stills(config.synthetic, fabric.device) if config.data != "videos" else None
    return next_batch(training_batches(config, stills, datasets, fabric, 0, 1))


def validation_sequences(config: TrainConfig) -> list[FrameSequence] | None:
    """The sequences of ``validation``, evenly spread; None where it names no dataset."""
    if config.validation is None:
        return None
    tracks = open_tracks(config.validation)
    usable = [i for i in range(len(tracks)) if judged_frames(tracks.boxes_xywh(i), config)]
    if not usable:
        raise ValueError(
            f"no sequence of the validation set {config.validation.name} shows its target again "
            f"within {config.validation_frames} frames"
        )
    count = min(len(usable), config.validation_samples)
    chosen = np.linspace(0, len(usable) - 1, count).round().astype(int)
    return [tracks.sequence(usable[index]) for index in chosen]


def judged_frames(boxes_xywh: Boxes, config: TrainConfig) -> int:
    """How many frames of a sequence a validation compares."""
    visible = np.asarray(np.isfinite(boxes_xywh).all(1))
    first = int(visible.argmax())
    return int(visible[first + 1 : first + config.validation_frames].sum())


def validated(
    judge: SPMTrack,
    held_out: HeldOut,
    config: TrainConfig,
    fabric: Fabric,
) -> dict[str, float]:
    """The columns ``validation_...`` of a line of the log; the same in every process."""
    if held_out is None:
        return {}
    if isinstance(held_out, SyntheticTracks):
        rounds = -(-config.validation_samples // held_out.batch_size)
        batches = (held_out.batch(index) for index in range(rounds))
        return validate_batches(judge, batches, fabric.autocast)
    tracker = Tracker(judge, config.model, config.tracker, fabric.device, config.precision)
    mine = held_out[fabric.global_rank :: fabric.world_size]
    found = validate_sequences(tracker, mine, config.validation_frames)
    ious = [iou for iou in found.values() if iou]
    sums = [sum(np.mean(iou) for iou in ious), len(ious), sum(map(sum, ious)), sum(map(len, ious))]
    shares = torch.tensor(sums, dtype=torch.float32, device=fabric.device)
    total = reduced(fabric, shares, "sum").tolist()
    if not total[1]:
        return {}  # none could be read; each has been named
    return {"validation_iou": total[0] / total[1], "validation_ao": total[2] / total[3]}


def reduced(fabric: Any, tensor: Tensor, operation: str) -> Tensor:
    """``sum`` or ``mean`` of a tensor over all processes."""
    return fabric.all_reduce(tensor, reduce_op=operation)


def whole(tensor: Tensor) -> Tensor:
    """A tensor, gathered from all processes where it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def parted(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, sharded as ``like`` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


def memory_gb(device: torch.device) -> float:
    """Peak memory of this process so far: the GPU's, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def read_state(path: Path) -> dict[str, Any]:
    """The checkpoint of a run, mapped: what is not used is not read.

    Raises FileNotFoundError without it, ValueError where it is incomplete.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state["config"]
    except Exception as error:  # a damaged file can make the reader stumble anywhere
        raise ValueError(f"{path} is not a complete checkpoint: {error}") from None
    return state


def check_resumable(path: Path, config: TrainConfig) -> None:
    """Raise ValueError where the checkpoint was made with another setting that matters."""
    kept = read_state(path)["config"]
    # a setting that came later has its default, which is what was done before
    stored, ours = plain(to_dict(from_dict(TrainConfig, kept))), plain(to_dict(config))
    for name in sorted(set(ours) - MAY_CHANGE):
        if ours[name] != stored[name]:
            raise ValueError(
                f"{path} was made with {name}: {stored[name]}, not {ours[name]}; "
                "resume with the settings of its config.yaml"
            )


def tell(config: TrainConfig, rows: list[dict[str, float]], minutes: float) -> dict[str, str]:
    """The provenance of the weights, for their file."""
    validated = [row["validation_iou"] for row in rows if "validation_iou" in row]
    return {
        "revision": revision(),
        "steps": f"{rows[-1]['step']:.0f}" if rows else "0",
        "samples": f"{rows[-1]['samples'] if rows else 0:.0f} {config.data} tracks",
        "searches": f"{config.searches} a track",
        "wall_time_min": f"{minutes:.1f}",
        "device": f"{config.devices} x {config.nodes} {config.device}, {config.precision}",
        "validation_iou": f"{validated[-1]:.4f}" if validated else "not measured",
        "config": json.dumps({**plain(to_dict(config)), "output": ""}),
    }


@cache
def revision() -> str:
    """The git revision of this code when it began to run, or ``unknown``: a commit made while it
    trains is not what trains."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def plain(value: Any) -> Any:
    """Settings with lists for tuples, as YAML and JSON hold them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
