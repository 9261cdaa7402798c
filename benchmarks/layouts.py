"""Measures every layout of the network, and whole frames, beside a plain matrix multiplication.

Speed does not depend on the weights: the networks of the published sizes get random ones.

python benchmarks/layouts.py --model nano --model spmtrack_b -o results.json
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from spmtrack_core.cli import run_command
from spmtrack_core.cli.options import Device
from spmtrack_core.config import ModelConfig, TrackerConfig
from spmtrack_core.evaluation.speed import BOX_XYWH, FRAME_HW, frame_times, machine, timed
from spmtrack_core.files import write_beside
from spmtrack_core.geometry.boxes import xywh_to_xyxy
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import Image, crop_image, normalize
from spmtrack_core.model.fused import fuse
from spmtrack_core.model.spmtrack import Prediction, SPMTrack, build_spmtrack
from spmtrack_core.model.tmoe import TMoELinear
from spmtrack_core.model.trunk import build_trunk
from spmtrack_core.model.weights import PRECISIONS, load_checkpoint
from spmtrack_core.tracking.cuda_engine import CapturedGraph
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.loading import choose_device, choose_precision, emulated, find_weights
from spmtrack_core.tracking.postprocess import select_box
from spmtrack_core.tracking.preprocess import crop_numbers
from spmtrack_core.tracking.references import REFERENCES
from spmtrack_core.tracking.tracker import Tracker

LOG = logging.getLogger(__name__)
SIZES = {
    "spmtrack_b": "vit_base_patch14_dinov2",
    "spmtrack_l": "vit_large_patch14_dinov2",
    "spmtrack_g": "vit_giant_patch14_dinov2",
}
MAX_BATCH = 16


def benchmark_layouts(
    model: Annotated[
        list[str] | None,
        typer.Option(help="nano, spmtrack_b, _l, _g or a checkpoint; may be repeated."),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, bfloat16 or float16; may be repeated.", show_default="what is fast here"
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Targets in one pass, 1 to 16; may be repeated.")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(help="Time spent on each line of the table.", show_default="CPU 5, CUDA 1.5"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON to write; a PNG comes beside it.")
    ] = None,
) -> None:
    """Measure every layout of the network, and whole frames, beside a matrix multiplication."""
    place = choose_device(device)
    cuda = place.type == "cuda"
    usual = ["bfloat16", "float16"] if cuda else ["float32"]
    if not (cuda or emulated("bfloat16", place)):
        usual.append("bfloat16")
    precisions = tuple(precision or usual)
    for each in precisions:
        choose_precision(each)
    batches = tuple(batch or ([1, 2, 4, 8, 16] if cuda else [1]))
    if not all(1 <= each <= MAX_BATCH for each in batches):
        raise ValueError(f"batch must be 1 to {MAX_BATCH}; got {min(batches)} to {max(batches)}")
    console = Console()
    names = model or ["nano", "spmtrack_b", *(["spmtrack_l", "spmtrack_g"] if cuda else [])]
    seconds = seconds or (1.5 if cuda else 5.0)
    rows: list[dict[str, Any]] = []
    about = machine(place)
    with torch.cuda.device(place) if cuda else contextlib.nullcontext():
        rates = {each: best_rate(place, each, 1.0) for each in precisions}
        for name in names:
            with console.status(f"measuring {name}"):
                for row in measure(name, place, precisions, batches, seconds):
                    rows.append(row)
                    if output:  # after each row: what was measured is kept, whatever comes
                        write_report(output, about, rates, rows)
    if not rows:
        raise ValueError("nothing could be measured: the warnings say why")
    for each, rate in rates.items():
        console.print(f"a matrix multiplication in {each}: {rate / 1e12:.2f} TFLOP/s")
    console.print(table(rows, rates))
    if output:
        plot(rows, about["device"], output.with_suffix(".png"))
        typer.echo(f"wrote {output} and {output.with_suffix('.png')}")


def write_report(
    path: Path, about: dict[str, Any], rates: dict[str, float], rows: list[dict[str, Any]]
) -> None:
    """Write computer, best rates and rows as JSON, with the largest memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = max((row["memory_bytes"] for row in rows if "memory_bytes" in row), default=peak)
    report = about | {"best_flop_per_s": rates, "peak_memory_bytes": peak, "rows": rows}
    text = json.dumps(report, indent=1) + "\n"
    write_beside(path, lambda beside: beside.write_text(text))


def measure(
    name: str,
    device: torch.device,
    precisions: tuple[str, ...],
    batches: tuple[int, ...],
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Rows for one network: a size of ``SIZES``, bundled weights or the path of a checkpoint.

    Each row has ``model``, ``layout``, ``precision``, ``batch``, and ``median_ms`` and ``p95_ms``
    of a pass; on CUDA also ``memory_bytes``, with the weights. The layouts: ``fused`` is what the
    tracker runs, ``graph`` the same as a CUDA graph, ``plain`` what training runs, ``published``
    goes expert by expert, ``vit`` is the trunk alone on as many tokens. ``tracker`` is a whole
    frame of 640x480, with ``crop_ms``, ``network_ms``, ``choice_ms`` and on CUDA ``upload_ms``.
    ``seconds`` is spent on each row. What fails, for memory or as a graph, is left out with a
    warning. Raises ``ValueError`` and ``FileNotFoundError`` as ``load_checkpoint`` does.
    """
    model, config, tracker_config = network(name, device)
    flops = flop(config)
    for precision in precisions:
        about = {"model": name, "precision": precision}
        part = "the network"
        try:
            for layout, run in layouts(model, config, PRECISIONS[precision], device):
                for batch in batches if layout in ("fused", "graph") else (1,):
                    part = f"{layout} of {batch}"
                    try:
                        inputs = example(config, batch, device)
                        times = timed(partial(run, *inputs), device, seconds)
                    except RuntimeError as error:
                        LOG.warning("%s, %s, %s: %s", name, precision, part, error)
                        continue
                    count = {"flop": None if layout == "vit" else batch * flops}
                    yield about | {"layout": layout, "batch": batch} | count | times
            del run
            part = "tracker"
            tracker = Tracker(model, config, tracker_config, device, precision)
            yield about | {"layout": "tracker", "batch": 1} | whole_frames(tracker, seconds)
        except RuntimeError as error:
            LOG.warning("%s, %s, after %s: %s", name, precision, part, error)


def network(name: str, device: torch.device) -> tuple[SPMTrack, ModelConfig, TrackerConfig]:
    """The network ``name`` on the CPU, with its settings; ``device`` draws random weights."""
    if name not in SIZES:
        checkpoint = load_checkpoint(find_weights(name))
        model, config = checkpoint.model, checkpoint.model_config
        tracker_config = checkpoint.tracker_config
        return model.eval(), config, tracker_config
    config = ModelConfig(trunk=SIZES[name])
    torch.manual_seed(0)
    with device:
        model = build_spmtrack(config)
    for module in model.modules():
        if isinstance(module, TMoELinear):  # zero at the start of a training
            nn.init.normal_(module.experts, std=0.02)
    return model.cpu().eval().requires_grad_(False), config, TrackerConfig()


def layouts(
    model: SPMTrack, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Names and functions of what ``example`` returns; only one exists at a time, for memory."""
    half = dtype is not torch.float32
    autocast = partial(torch.autocast, device.type, dtype if half else None, enabled=half)

    def under_autocast(function: nn.Module, *inputs: Tensor) -> Any:
        with autocast():
            return function(*inputs)

    fused: Any = fuse(model, dtype).to(device)
    references, masks = example(config, MAX_BATCH, device)[1:3]
    (encoded,) = fused.encode_reference(references.flatten(0, 1), masks.flatten(0, 1))
    # encoded once, when they become references: (16, R, ...)
    tokens = encoded.unflatten(0, (MAX_BATCH, REFERENCES))
    del references, masks
    yield "fused", partial(_fused_pass, fused, tokens)
    if device.type == "cuda":
        captured: dict[int, CapturedGraph] = {}
        yield "graph", partial(_captured_pass, captured, fused, tokens)
        del captured
    del fused, tokens
    plain = copy.deepcopy(model).to(device)
    yield "plain", partial(under_autocast, plain)
    for module in plain.modules():
        if isinstance(module, TMoELinear):
            module.forward = partial(one_expert_after_another, module)  # type: ignore[method-assign]
    yield "published", partial(under_autocast, plain)
    for module in plain.modules():  # the function that replaces forward holds its module
        module.__dict__.pop("forward", None)
    del plain, module
    with device:
        vit = PlainViT(config)
    for block in vit.trunk.blocks:  # casts once, like the fused layout
        for linear in (block.attn.qkv, block.attn.proj, block.mlp):
            linear.to(dtype)
    yield "vit", partial(under_autocast, vit)


def _fused_pass(network: nn.Module, tokens: Tensor, search: Tensor, *others: Tensor) -> Any:
    return network(search, tokens[: len(search)], others[-1])


def _captured_pass(
    captured: dict[int, CapturedGraph], network: nn.Module, tokens: Tensor, *inputs: Tensor
) -> Any:
    """As ``_fused_pass``, captured at the first pass of a batch size; all inputs are copied."""
    batch, nothing = len(inputs[0]), np.zeros(1)
    others = inputs[0], tokens[:batch], inputs[-1]
    if batch not in captured:
        captured.clear()
        captured[batch] = CapturedGraph(
            lambda _, *given: tuple(network(*given)), nothing, others, tokens.device
        )
    return captured[batch](nothing, *others)


def one_expert_after_another(part: TMoELinear, x: Tensor) -> Tensor:
    """A linear layer as the published code computes it: each expert by itself, in a loop."""
    weights = F.linear(x, part.router).softmax(-1)  # (B, N, E)
    mixed: Tensor | int = 0
    for expert in range(part.experts.shape[1]):
        down = part.down[expert if len(part.down) > 1 else 0]
        out = F.linear(F.linear(x, down), part.experts[:, expert])  # (B, N, out)
        mixed = mixed + weights[..., expert, None] * out
    if part.shared is not None:
        mixed = mixed + F.linear(F.linear(x, part.down[0]), part.shared)
    return F.linear(x, part.weight, part.bias) + part.scaling * mixed


class PlainViT(nn.Module):
    """timm's trunk without experts, on as many tokens as SPMTrack has."""

    others: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.trunk = build_trunk(config).eval().requires_grad_(False)
        rows, columns = config.template_grid_hw
        others = 1 + REFERENCES * rows * columns
        self.register_buffer("others", torch.randn(1, others, self.trunk.embed_dim))

    def forward(self, search: Tensor, *_: Tensor) -> Tensor:
        tokens = self.trunk.patch_embed(search) + self.trunk.pos_embed  # (B, Nx, C)
        tokens = torch.cat((self.others.expand(len(search), -1, -1), tokens), 1)  # (B, T, C)
        for block in self.trunk.blocks:
            tokens = block(tokens)
        return self.trunk.norm(tokens)


def example(config: ModelConfig, batch: int, device: torch.device) -> tuple[Tensor, ...]:
    """Search, references, masks and state token of ``batch`` targets."""
    with torch.device("meta"):
        width = build_trunk(config).embed_dim
    random = torch.Generator().manual_seed(0)
    shapes = ((3, *config.search_hw), (REFERENCES, 3, *config.template_hw))
    images = [torch.randn(batch, *shape, generator=random).to(device) for shape in shapes]
    masks = torch.ones(batch, REFERENCES, *config.template_grid_hw, device=device)
    return *images, masks, torch.zeros(batch, 1, width, device=device)


def flop(config: ModelConfig) -> int:
    """Floating-point operations of one pass of the plain layout; a multiply-add is two."""
    with torch.device("meta"):
        model = build_spmtrack(config).eval()
        inputs = example(config, 1, torch.device("meta"))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return int(counter.get_total_flops())


def best_rate(device: torch.device, precision: str, seconds: float) -> float:
    """Floating-point operations per second of one multiplication of square matrices.

    Their side is 8192 on CUDA, 2048 on a CPU.
    """
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(PRECISIONS[precision]) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, device, seconds)["median_ms"] * 1000


def whole_frames(tracker: Tracker, seconds: float) -> dict[str, float]:
    """As ``frame_times``, and the median of each stage by itself."""
    row = frame_times(tracker, seconds)
    frame = np.random.default_rng(0).integers(0, 255, (*FRAME_HW, 3)).astype(np.uint8)
    with tracker.engine.stream():
        for name, stage in stages(tracker, frame).items():
            row[f"{name}_ms"] = timed(stage, tracker.device, seconds / 4)["median_ms"]
    return row


@torch.inference_mode()
def stages(tracker: Tracker, frame: Image) -> dict[str, Callable[[], Any]]:
    """The engine's stages for one target: upload, search crop, network, choice of the box."""
    target, engine, search_hw = tracker.target, tracker.engine, tracker.model_config.search_hw
    assert target is not None
    crop = context_crop(
        xywh_to_xyxy(BOX_XYWH), tracker.config.search_area_factor, FRAME_HW, search_hw
    )
    search = example(tracker.model_config, 1, tracker.device)[0]
    network: Any = tracker.model
    inputs = search, *target.references.gather(tracker.config.reference_rule), target.state_token
    prediction = network(*inputs)
    choose = partial(select_box, window=engine.window, search_hw=search_hw,
                     window_weight=tracker.config.window_weight)  # fmt: skip
    if isinstance(engine, HostEngine):
        return {
            "crop": lambda: normalize(crop_image(frame, crop, search_hw, target.background)),
            "network": lambda: network(*inputs),
            "choice": lambda: choose(prediction),
        }
    numbers = crop_numbers(FRAME_HW, crop, target.background)[None]  # (1, 12)
    parts = (
        ("crop", lambda numbers: (engine.crops(numbers, search_hw),), ()),
        ("network", lambda _, *given: tuple(network(*given)), inputs),
        ("choice", lambda _, *given: choose(Prediction(*given)), tuple(prediction)),
    )
    found: dict[str, Callable[[], Any]] = {"upload": lambda: engine.set_frame(frame)}
    for name, function, others in parts:
        if engine.may_capture:
            function = CapturedGraph(function, numbers, others, tracker.device)
            found[name] = partial(function, numbers, *others)
        else:
            sent = torch.from_numpy(numbers).to(tracker.device)
            found[name] = partial(function, sent, *others)
    return found


def table(rows: list[dict[str, Any]], rates: dict[str, float]) -> Table:
    """Rows for the terminal; ``rates`` is ``best_rate`` by precision."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("model", "layout", "precision", "batch", "ms", "95 %", "fps", "TFLOP/s",
                  "of best"):  # fmt: skip
        shown.add_column(title, justify="left" if title in ("model", "layout") else "right")
    for row in rows:
        fps = 1000 * row["batch"] / row["median_ms"]
        rate = row["flop"] / row["median_ms"] * 1000 if row.get("flop") else None
        shown.add_row(
            row["model"], row["layout"], row["precision"], str(row["batch"]),
            f"{row['median_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{fps:.1f}",
            f"{rate / 1e12:.2f}" if rate else "",
            f"{rate / rates[row['precision']]:.0%}" if rate else "",
        )  # fmt: skip
    return shown


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Frames per second of every row with one target, as a PNG."""
    single = [row for row in rows if row["batch"] == 1]
    figure = Figure(figsize=(9, 0.6 + 0.28 * len(single)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row['model']}, {row['layout']}, {row['precision']}" for row in single]
    colors = ["C0" if row["layout"] in ("fused", "graph", "tracker") else "0.7" for row in single]
    bars = axes.barh(labels[::-1], [1000 / r["median_ms"] for r in single[::-1]],
                     color=colors[::-1])  # fmt: skip
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="frames per second", xscale="log", title=title)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))


if __name__ == "__main__":
    run_command(lambda: typer.run(benchmark_layouts))
