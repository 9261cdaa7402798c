"""The trainer, to be read downwards: data, parameters, schedule, loop, files of the run.

    spmtrack train config/train_nano.yaml                         # a run
    spmtrack train config/train_nano.yaml --resume                # go on after an interruption
    spmtrack train config/train_nano.yaml --time-limit 60         # end cleanly after an hour
    spmtrack train config/train_nano.yaml batch_size=8 steps=100  # other numbers

The folder of a run holds ``config.yaml`` (what it was really run with), ``log.csv``,
``checkpoint.pt`` (everything needed to go on exactly), ``weights.safetensors`` (what
``load_tracker`` reads) and ``curves.png``.
"""

from __future__ import annotations

import copy
import json
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import Tensor

from spmtrack_core.config import ModelConfig, TrainConfig, to_dict
from spmtrack_core.files import write_beside
from spmtrack_core.model.spmtrack import Prediction, SPMTrack, build_spmtrack, trainable_names
from spmtrack_core.model.weights import load_checkpoint, save_checkpoint
from spmtrack_core.tracking.tracker import choose_device, find_weights
from spmtrack_core.training.losses import iou_and_giou, tracking_loss
from spmtrack_core.training.runlog import Log, Meter, plot, progress_bar, summary
from spmtrack_core.training.stills import read_stills
from spmtrack_core.training.synthetic import SEARCHES, Batch, SyntheticTracks

MAY_CHANGE = {"output", "device", "time_limit_min", "log_every",
              "validation_every", "checkpoint_every"}  # fmt: skip
"""Settings that a resumed run may change without ceasing to be the same run."""
VALIDATION_SEED = 987_654_321


class TrainingDiverged(ArithmeticError):
    """Loss or gradient is not a finite number."""


def train(
    config: TrainConfig, resume: bool = False, command: str = "", console: Console | None = None
) -> Path:
    """Train a network as ``config`` says; returns the path of the final weights.

    Raises TrainingDiverged at the first loss or gradient that is not finite (the last checkpoint
    stays), FileNotFoundError for missing photographs, weights to start from or, with ``resume``,
    a missing checkpoint, ValueError where the checkpoint belongs to another run or the weights to
    another network.
    """
    console = console or Console(stderr=True)
    output = Path(config.output)
    if not resume and (output / "checkpoint.pt").exists():
        raise ValueError(f"{output} holds a run already: --resume it, or name another output")
    output.mkdir(parents=True, exist_ok=True)
    device = choose_device(config.device)
    torch.manual_seed(config.seed)

    # -- data: batch number i is a function of seed and i alone
    stills = read_stills(config.data, device)
    share = config.batch_size // config.workers
    tracks = SyntheticTracks(config.data, config.model, config.tracker, stills, share, config.seed)
    held_out = SyntheticTracks(
        config.data, config.model, config.tracker, stills, share, VALIDATION_SEED
    )

    # -- parameters: matrices decay; 1-D parameters and embeddings do not
    model = build_spmtrack(config.model)
    before: dict[str, str] = {}  # the story of the weights that the run starts from
    if config.start_from is not None and not resume:
        model, before = first_weights(config.start_from, config.model)
    model = model.to(device).train()
    if config.trained == "adapters":
        names = trainable_names(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    mean = {n: p.detach().clone() for n, p in learning.items()}  # running mean of the weights
    groups: list[dict[str, Any]] = [
        {"params": [p for n, p in learning.items() if decays(n, p)]},
        {"params": [p for n, p in learning.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.lr,
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )

    # -- workers: each has a copy of the network in the precision of the run
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    copies = [copy.deepcopy(model).to(dtype) for _ in range(config.workers)]

    def work(worker: int) -> dict[str, float]:
        """One share of the step: fresh weights, fresh tracks, gradients left in the copy."""
        network = copies[worker]
        fill(network, learning)
        asked = time.monotonic()
        batch = tracks.batch(step * config.workers + worker)
        made = time.monotonic() - asked
        terms = losses(network, batch, config.score_weight, config.box_weight,
                       iou_aware=step >= config.hard_target_steps)  # fmt: skip
        network.zero_grad(set_to_none=True)
        terms["loss"].backward()
        return {name: float(term.detach()) for name, term in terms.items()} | {"made_s": made}

    # -- where to start
    step, used_min = 0, 0.0
    if resume:
        state = load_state(output / "checkpoint.pt", config, device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        mean = state["mean"]
        torch.set_rng_state(state["rng"].cpu())
        step, used_min, before = state["step"], state["minutes"], state["before"]
    log = Log(output / "log.csv", keep_until=step)
    settings = yaml.safe_dump(plain(to_dict(config)), sort_keys=False)
    write_beside(output / "config.yaml", lambda path: path.write_text(settings))

    started, limit = time.monotonic(), config.time_limit_min or math.inf

    def minutes() -> float:
        return used_min + (time.monotonic() - started) / 60

    def averaged() -> dict[str, Tensor]:
        return mean if config.ema_decay else {n: p.detach() for n, p in learning.items()}

    def save_state() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "mean": mean,
                 "rng": torch.get_rng_state(), "step": step, "minutes": minutes(),
                 "before": before, "config": plain(to_dict(config))}  # fmt: skip
        write_beside(output / "checkpoint.pt", lambda path: torch.save(state, path))

    # -- the loop
    meter = Meter()
    with Workers(config.workers) as workers, progress_bar(console) as bar:
        task = bar.add_task("training", total=1.0, note="")
        while step < config.steps and minutes() < limit:
            done = max(step / config.steps, minutes() / limit)
            rate = learning_rate(config, step, done if config.anneal == "time" else None)
            for group in optimizer.param_groups:
                group["lr"] = rate
            shares = workers.each(work)
            for name, parameter in learning.items():
                grads = [network.get_parameter(name).grad for network in copies]
                parameter.grad = torch.stack([g.float() for g in grads if g is not None]).mean(0)
            norm = torch.nn.utils.clip_grad_norm_(learning.values(), config.clip_norm)
            values = {name: sum(s[name] for s in shares) / len(shares) for name in shares[0]}
            values["gradient_norm"] = float(norm)
            if not all(math.isfinite(value) for value in values.values()):
                raise TrainingDiverged(
                    f"step {step} gave {values}; stopped before the weights took harm. "
                    f"Try a smaller lr than {config.lr:g} or precision: float32"
                )
            optimizer.step()
            step += 1
            decay = min(config.ema_decay, step / (10 + step))
            torch._foreach_lerp_(
                list(mean.values()), [p.detach() for p in learning.values()], 1 - decay
            )
            meter.add(values, config.batch_size)

            last = step == config.steps or minutes() >= limit
            bar.update(task, completed=max(step / config.steps, minutes() / limit))
            validating = last or step % config.validation_every == 0
            if validating or step % config.log_every == 0:
                row = {"step": step, "samples": step * config.batch_size, "lr": rate}
                row |= meter.read() | {"minutes": minutes()}
                if validating:
                    fill(copies[0], averaged())
                    rounds = -(-config.validation_samples // share)
                    row |= validate(copies[0], held_out, rounds)
                log.add(row)
                meter = Meter()
                note = summary(row)
                bar.update(task, note=note)
                if validating or not console.is_terminal:
                    bar.console.print(note, highlight=False, soft_wrap=True)
            if last or step % config.checkpoint_every == 0:
                save_state()
                final = copy.deepcopy(model)
                fill(final, averaged())
                story = {"command": command, **tell(config, log.rows, minutes())}
                if before:
                    story["before"] = json.dumps(before)
                save_checkpoint(output / "weights.safetensors", final, config.model,
                                config.tracker, story, half=True)  # fmt: skip
    if not log.rows:
        raise ValueError(f"time_limit_min {config.time_limit_min} ended the run before any step")
    plot(log.rows, output / "curves.png")
    return output / "weights.safetensors"


def first_weights(start_from: str, wanted: ModelConfig) -> tuple[SPMTrack, dict[str, str]]:
    """The weights that a run starts from, and their story."""
    model, stored, _, story = load_checkpoint(find_weights(start_from))
    if stored != wanted:
        raise ValueError(
            f"start_from {start_from}: its network is {stored}, not the {wanted} of this run"
        )
    return model, story


def decays(name: str, parameter: Tensor) -> bool:
    """Weight decay is for matrices: not for 1-D parameters, tokens, token types and positions."""
    embedding = name in ("target_token", "target_embed", "token_types", "trunk.pos_embed")
    return parameter.ndim > 1 and not embedding


def learning_rate(config: TrainConfig, step: int, done: float | None = None) -> float:
    """Linear warm-up, then a cosine over the rest of the run (``done``: its share, 0..1)."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if done is None:
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * done)) / 2


def look(model: SPMTrack, batch: Batch) -> Iterator[tuple[Prediction, Tensor]]:
    """Predictions in float32 for both searches of a batch, each with its true boxes.

    The state token goes from the first to the second, detached. The pass runs wholly in the
    precision of the network's parameters; on a CPU that is faster than autocast, which converts
    at every map.
    """
    dtype = model.target_token.dtype
    references, searches = batch.references.to(dtype), batch.searches.to(dtype)
    state = None
    for i in range(SEARCHES):
        seen: Prediction = model(searches[:, i], references, batch.masks, state)
        state = seen.state_token.detach()
        yield Prediction(seen.score_map.float(), seen.boxes.float(), state), batch.boxes_xyxy[:, i]


def losses(
    model: SPMTrack,
    batch: Batch,
    score_weight: float = 1.0,
    box_weight: float = 1.0,
    iou_aware: bool = True,
) -> dict[str, Tensor]:
    """The loss of a batch, summed over its searches, its terms and the mean IoU of positives."""
    search_hw = (batch.searches.shape[-2], batch.searches.shape[-1])
    terms = [
        tracking_loss(seen.score_map, seen.boxes, gt_xyxy, search_hw, iou_aware)
        for seen, gt_xyxy in look(model, batch)
    ]
    score = torch.stack([term.score for term in terms]).sum()
    box = torch.stack([term.box for term in terms]).sum()
    return {
        "loss": score_weight * score + box_weight * box,
        "score_loss": score,
        "box_loss": box,
        "positive_iou": torch.cat([term.iou for term in terms]).sum()
        / max(1, sum(len(term.iou) for term in terms)),
    }


@torch.no_grad()
def validate(model: SPMTrack, tracks: SyntheticTracks, rounds: int) -> dict[str, float]:
    """What the best cells say of the first ``rounds`` batches of ``tracks``.

    The mean IoU where the target is there, and how well the score tells boxes with an IoU above
    0.5 from the others and from absent targets.
    """
    model.eval()
    scores, found = [], []
    for index in range(rounds):
        batch = tracks.batch(index)
        size_wh = batch.boxes_xyxy.new_tensor(batch.searches.shape[:-3:-1]).repeat(2)
        for seen, gt_xyxy in look(model, batch):
            score, best = seen.score_map.flatten(1).max(1)
            boxes = seen.boxes.flatten(1, 2)[torch.arange(len(best)), best]
            found.append(iou_and_giou(boxes * size_wh, gt_xyxy)[0])  # NaN where it is absent
            scores.append(score)
    model.train()
    iou, sure = torch.cat(found), torch.cat(scores)
    good = iou > 0.5
    ahead = sure[good][:, None] - sure[~good]  # of every good box over every other
    values = {"validation_iou": float(iou.nanmean())}
    if ahead.numel():
        values["validation_auc"] = float((ahead.sign().mean() + 1) / 2)  # ROC AUC
    return values


@torch.no_grad()
def fill(model: SPMTrack, weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into the parameters of the same names, in the precision of ``model``."""
    for name, weight in weights.items():
        model.get_parameter(name).copy_(weight)


class Workers:
    """Threads that each do a share of a step on one core, and meet only at its end.

    PyTorch's own threads meet after every operation instead, which for a network this small costs
    a fifth of the time on a quiet machine and most of it on a busy one.
    """

    def __init__(self, count: int) -> None:
        self.count, self.threads = count, torch.get_num_threads()
        self.pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.count > 1:
            torch.set_num_threads(1)
            self.pool = ThreadPoolExecutor(self.count, "worker", torch.set_num_threads, (1,))
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown()
            torch.set_num_threads(self.threads)

    def each(self, work: Callable[[int], dict[str, float]]) -> list[dict[str, float]]:
        """``work(0)``, ``work(1)``, ... at once; their results in this order."""
        if self.pool is None:
            return [work(0)]
        return list(self.pool.map(work, range(self.count)))


def load_state(path: Path, config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """The checkpoint of a run that ``config`` may go on with.

    Raises FileNotFoundError without one, ValueError where a setting that matters is another.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to resume from")
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, UnpicklingError, KeyError) as error:
        raise ValueError(f"{path} is not a complete checkpoint: {error}") from None
    ours = plain(to_dict(config))
    for name in sorted(set(ours) - MAY_CHANGE):
        if ours[name] != state["config"].get(name):
            raise ValueError(
                f"{path} was made with {name}: {state['config'].get(name)}, not {ours[name]}; "
                "resume with the settings of its config.yaml"
            )
    return state


def tell(config: TrainConfig, rows: list[dict[str, float]], minutes: float) -> dict[str, str]:
    """The story of the weights, for their file."""
    validated = [row["validation_iou"] for row in rows if "validation_iou" in row]
    return {
        "revision": revision(),
        "steps": f"{rows[-1]['step']:.0f}" if rows else "0",
        "samples": f"{rows[-1]['samples']:.0f} synthetic tracks of two searches" if rows else "0",
        "wall_time_min": f"{minutes:.1f}",
        "device": f"{config.device}, {config.workers} workers",
        "synthetic_validation_iou": f"{validated[-1]:.4f}" if validated else "not measured",
        "config": json.dumps({**plain(to_dict(config)), "output": ""}),
    }


def revision() -> str:
    """The git revision of this code, or ``unknown``."""
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
