"""The training loop, to be read downwards: data, weights, devices, network, loop.

    spmtrack train recipes/spmtrack_b.yaml                       # train
    spmtrack train recipes/spmtrack_b.yaml --dry-run             # two steps: memory and speed
    spmtrack train recipes/spmtrack_b.yaml --resume              # continue after an interruption
    spmtrack train recipes/spmtrack_b.yaml --time-limit 230      # end before a queue ends the job
    spmtrack train recipes/spmtrack_b.yaml devices=8             # all GPUs of this machine
    torchrun --nnodes 2 --nproc-per-node 8 ... $(which spmtrack) train ... devices=8 nodes=2

The folder of a run holds ``config.yaml`` (all settings of the run), ``log.csv`` and TensorBoard
events, ``checkpoint.pt`` (everything needed to resume exactly), ``weights.safetensors`` (for
``load_tracker``), ``best.safetensors`` and ``curves.png``.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from spmtrack_core.files import user_path
from spmtrack_core.model.spmtrack import SPMTrack
from spmtrack_core.settings import to_dict
from spmtrack_core.training.config import TrainConfig
from spmtrack_core.training.network import averaged, initial_model, prepare, stem_of
from spmtrack_core.training.optim import EMA, adamw, learning_rate, muon
from spmtrack_core.training.processes import all_reduce, make_fabric, means
from spmtrack_core.training.run import (
    Progress,
    check_resumable,
    check_unused,
    lock_folder,
    provenance,
    read_state,
    save_tensors,
    save_weights,
    write_settings,
)
from spmtrack_core.training.runlog import Log, Meter, plot, progress_bar, summary
from spmtrack_core.training.sources import (
    check_photos,
    held_out_tracks,
    next_batch,
    open_datasets,
    open_photos,
    training_batches,
    validation_sequences,
)
from spmtrack_core.training.step import TrackingLoss, positive_cells
from spmtrack_core.training.validate import validate

SKIPPED_STEPS = 50
"""Steps in a row that float16's gradient scaler may skip before the run counts as diverged."""


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
    """Train a network; returns the path of the final weights.

    Args:
        config: settings of the run.
        resume: continue from the checkpoint in the run's folder.
        command: the command line, for the provenance of the weights.
        console: for messages; stderr by default.
        dry_run: make two steps and report memory and speed, without writing a file.
        time_limit_min: end this part of the run after so many minutes from this call, with a
            checkpoint to resume from. At least one step is made.

    Raises:
        TrainingDiverged: a loss or gradient is not finite. The last checkpoint stays; the batch
            is saved.
        FileNotFoundError: data, weights or checkpoint are missing.
        ValueError: data, weights or checkpoint do not fit this run.

    """
    called = time.monotonic()
    output = user_path(config.output)
    if resume:
        check_resumable(output / "checkpoint.pt", config)
    elif not dry_run:
        check_unused(output)
    fabric = make_fabric(config)
    writes = fabric.is_global_zero and not dry_run
    console = console or Console(stderr=True, markup=False)
    if not fabric.is_global_zero:
        console = Console(quiet=True)

    # data and initial weights, before more processes start: each would report the errors
    check_photos(config)
    datasets = open_datasets(config, console)
    sequences = validation_sequences(config)
    torch.manual_seed(config.seed)
    model, before = initial_model(config, resume)
    lock = lock_folder(output) if writes else None

    # devices: one process each, which all run this function
    fabric.launch()
    rank, world, device = fabric.global_rank, fabric.world_size, fabric.device

    # network, optimizer, moving average
    network: Any = TrackingLoss(prepare(model, config, device), config.without).train()
    if config.compile:
        network = torch.compile(network)
    network = fabric.setup_module(network)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    make_optimizer: Any = muon if config.optimizer == "muon" else adamw
    base_optimizer = make_optimizer(trainable, config, device)
    optimizer: Any = fabric.setup_optimizers(base_optimizer)
    ema = EMA(trainable, config.ema_decay)
    stem = stem_of(model)

    # where the run was
    progress = Progress(before=before)
    if resume:
        state = read_state(output / "checkpoint.pt")
        copy_tensors({n: state["network"][f"model.{n}"] for n in trainable}, trainable)
        copy_tensors(state["ema"], ema.weights)
        base_optimizer.load_state_dict(state["optimizer"])
        if config.precision == "float16":
            fabric.strategy.precision.load_state_dict(state["scaler"])
        progress = Progress(**{name: state[name] for name in asdict(progress)})
    first_step = progress.step
    steps = first_step + 2 if dry_run else config.steps

    pool = open_photos(config, device)
    batches = training_batches(config, pool, datasets, first_step, steps, rank, device)
    held_out = sequences or held_out_tracks(config, pool)

    log = Log(output if writes else None, keep_until=first_step)
    if writes:
        write_settings(output, config)
    fabric.barrier()
    started, used_min = time.monotonic(), progress.minutes
    limit = config.time_limit_min or math.inf
    meter, skipped = Meter(), 0
    stop = progress.exhausted(config.patience) and not dry_run

    def save(name: str, weights: SPMTrack) -> None:
        if writes:
            about = provenance(config, command, log.rows, progress)
            save_weights(output / name, weights, config, about)

    with progress_bar(console) as bar:
        task = bar.add_task("training", total=1.0, note="")
        while not stop and progress.step < steps and progress.minutes < limit:
            step = progress.step
            torch.manual_seed((config.seed * 1_000_003 + step) * world + rank)
            done = max(step / config.steps, progress.minutes / limit)
            rate = learning_rate(config, step, done if config.anneal == "time" else None)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_factor", 1.0)
            if stem is not None:
                stem.frozen = step < config.stem_frozen_steps

            # forward and backward; losses are divided by the positive cells of the whole batch
            asked = time.monotonic()
            micro_batches = [
                next_batch(batches) for _ in range(config.gradient_accumulation_steps)
            ]
            waited_s = time.monotonic() - asked
            grid_hw = config.model.search_grid_hw
            cells = torch.stack([positive_cells(each, grid_hw) for each in micro_batches]).sum(0)
            counts = all_reduce(fabric, cells, "mean").clamp_min(1)  # (S,)
            box_weight = config.box_weight
            if step < config.early_steps:
                box_weight *= config.early_box_weight
            iou_aware = step >= config.hard_target_steps
            sums: dict[str, Tensor] = {}
            for number, micro_batch in enumerate(micro_batches, 1):
                last = number == len(micro_batches)
                with fabric.no_backward_sync(network, enabled=not last):
                    terms = network(
                        micro_batch, counts, config.score_weight, box_weight, iou_aware
                    )
                    fabric.backward(terms["loss"])
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0) + term.detach()
            sums["positive_iou"] /= len(micro_batches)
            norm: Any = fabric.clip_gradients(
                network, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
            )

            # means over all processes, also of the clocks: all must stop after the same step
            now = time.monotonic()
            clocks = [used_min + (now - started) / 60, (now - called) / 60]
            values = means(fabric, sums | {"gradient_norm": norm}, clocks)
            progress.minutes, called_min = values.pop("clock_0"), values.pop("clock_1")
            skipped = 0 if math.isfinite(values["gradient_norm"]) else skipped + 1
            too_many = SKIPPED_STEPS if config.precision == "float16" else 1
            if skipped == too_many or not math.isfinite(values["loss"]):
                text = f"step {step} gave {values}"
                if not dry_run:
                    where = output / f"bad_batch_{rank}.pt"
                    stored = [each._asdict() for each in micro_batches]
                    save_tensors(where, stored)
                    text += f"; the batch is in {where}"
                text += f". Try an lr below {config.lr:g} or precision=float32"
                learned = output / "weights.safetensors"
                if learned.exists() and not dry_run:
                    text += (
                        f", in a new output, with start_from={learned} to keep what was learned"
                    )
                raise TrainingDiverged(text)

            if stem is not None and stem.frozen:
                for parameter in stem.features.parameters():
                    parameter.grad = None  # no decay and no moments either
            optimizer.step()
            optimizer.zero_grad()
            progress.step = step = step + 1
            ema.update(step)
            meter.add(values | {"waited_s": waited_s}, config.batch_size)

            # log, validation, weights, checkpoint
            ended = step == steps or progress.minutes >= limit
            stop = ended or called_min >= time_limit_min
            scheduled = step % config.validation_every == 0
            validating = not dry_run and (stop or scheduled)
            bar.update(task, completed=max(step / steps, progress.minutes / limit))
            if validating or stop or step % config.log_every == 0:
                row: dict[str, float] = {"step": step, "samples": step * config.batch_size}
                row |= {"lr": rate, "minutes": progress.minutes, "memory_gb": memory_gb(device)}
                row |= meter.read()
                judged = averaged(model, ema, config) if validating else None
                if judged is not None:
                    # one result for all processes, which rounding could make differ
                    row |= fabric.broadcast(validate(judged, held_out, config, fabric))
                log.add(row)
                # an interruption must not choose the best weights, nor when patience ends the run
                if judged is not None and (scheduled or ended):
                    if progress.improved(row.get("validation_iou", -math.inf), scheduled):
                        save("best.safetensors", judged)
                    if progress.exhausted(config.patience):
                        bar.console.print(f"no better for {progress.stale} validations: stopped")
                        stop = True
                bar.update(task, note=summary(row))
                if validating or dry_run or not console.is_terminal:
                    bar.console.print(summary(row), highlight=False, soft_wrap=True)
                meter = Meter()
            if writes and (stop or step % config.checkpoint_every == 0):
                save("weights.safetensors", averaged(model, ema, config))
                state = {
                    "network": {f"model.{name}": p.detach() for name, p in trainable.items()},
                    "ema": ema.weights,
                    "optimizer": base_optimizer.state_dict(),
                    "scaler": fabric.strategy.precision.state_dict(),
                    "config": to_dict(config),
                }
                save_tensors(output / "checkpoint.pt", state | asdict(progress))

    if dry_run:
        report_size(model, config, device, console)
        return output / "weights.safetensors"
    if progress.step == first_step:
        console.print("this run has ended already: nothing was trained")
        save("weights.safetensors", averaged(model, ema, config))
    if writes:
        plot(log.rows, output / "curves.png")
    console.print(f"wrote {output / 'weights.safetensors'}", highlight=False, soft_wrap=True)
    if lock is not None:
        lock.close()
    return output / "weights.safetensors"


@torch.no_grad()
def copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy ``source`` into the tensors of the same names in ``target``."""
    for name, tensor in target.items():
        tensor.copy_(source[name])


def memory_gb(device: torch.device) -> float:
    """Peak memory of this process: that of the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def report_size(
    model: SPMTrack, config: TrainConfig, device: torch.device, console: Console
) -> None:
    """Print number of parameters, micro-batches and memory."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    console.print(
        f"{total:,} parameters, {trainable:,} of them trainable; {config.micro_batches} "
        f"micro-batches of {config.micro_batch_size} tracks a step, {config.precision}; peak "
        f"memory of a process {memory_gb(device):.2f} GB on {device}",
        highlight=False,
        soft_wrap=True,
    )
