"""Measures every layout of the network, and whole frames, beside a plain matrix multiplication.

Speed does not depend on the weights: the networks of the published sizes get random ones.

python benchmarks/layouts.py --model nano --model spmtrack_b -o results.json
"""

from __future__ import annotations

import contextlib
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

from networks import MAX_BATCH, example, flop, layouts, network
from spmtrack_core.cli import run_command
from spmtrack_core.cli.options import Device
from spmtrack_core.evaluation.speed import BOX_XYWH, FRAME_HW, frame_times, machine, timed
from spmtrack_core.files import check_output, write_beside, write_text
from spmtrack_core.geometry.boxes import xywh_to_xyxy
from spmtrack_core.geometry.crop import context_crop
from spmtrack_core.geometry.image import Image, crop_image, normalize
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.model.weights import PRECISIONS, choose_precision
from spmtrack_core.tracking.cuda_engine import CapturedGraph
from spmtrack_core.tracking.device_steps import crop_numbers, select_box_tensor
from spmtrack_core.tracking.host_engine import HostEngine
from spmtrack_core.tracking.postprocess import select_box
from spmtrack_core.tracking.torch_engines import choose_device, emulated, torch_engine
from spmtrack_core.tracking.tracker import Tracker

LOG = logging.getLogger(__name__)


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
    if output:
        check_output(output)
    chosen = choose_device(device)
    cuda = chosen.type == "cuda"
    usual = ["bfloat16", "float16"] if cuda else ["float32"]
    if not (cuda or emulated("bfloat16", chosen)):
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
    about = machine(str(chosen))
    with torch.cuda.device(chosen) if cuda else contextlib.nullcontext():
        rates = {each: best_rate(chosen, each, 1.0) for each in precisions}
        for name in names:
            with console.status(f"measuring {name}"):
                for row in measure(name, chosen, precisions, batches, seconds):
                    rows.append(row)
                    if output:  # after each row: an interruption keeps all rows before it
                        write_report(output, about, rates, rows)
    if not rows:
        raise ValueError("nothing could be measured: see the warnings")
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
    write_text(path, json.dumps(report, indent=1) + "\n")


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
    tracker runs, ``graph`` the same as a CUDA graph, ``openvino`` the same by OpenVINO on a CPU,
    ``plain`` what training runs, ``published`` goes expert by expert, ``vit`` is the trunk alone
    on as many tokens. ``tracker`` is a frame of 640x480 from image to box, with ``crop_ms``,
    ``network_ms``, ``choice_ms`` and on CUDA ``upload_ms``. ``seconds`` is spent on each row. A
    row that fails, for memory or as a graph, is left out with a warning. Raises as
    ``load_checkpoint`` does.
    """
    model, config, tracker_config = network(name, device)
    flops = flop(config)
    for precision in precisions:
        about = {"model": name, "precision": precision}
        part, inference = "the network", torch.inference_mode()
        try:
            for layout, run in layouts(model, config, PRECISIONS[precision], device):
                for batch in batches if layout in ("fused", "graph") else (1,):
                    part = f"{layout} of {batch}"
                    try:
                        inputs = example(config, batch, device)
                        times = timed(inference(partial(run, *inputs)), str(device), seconds)
                    except RuntimeError as error:
                        LOG.warning("%s, %s, %s: %s", name, precision, part, error)
                        continue
                    count = {"flop": None if layout == "vit" else batch * flops}
                    yield about | {"layout": layout, "batch": batch} | count | times
            del run
            part = "tracker"
            tracker = Tracker(torch_engine(model, config, device, precision), tracker_config)
            yield about | {"layout": "tracker", "batch": 1} | whole_frames(tracker, seconds)
        except RuntimeError as error:
            LOG.warning("%s, %s, after %s: %s", name, precision, part, error)


def best_rate(device: torch.device, precision: str, seconds: float) -> float:
    """Floating-point operations per second of one multiplication of square matrices.

    Their side is 8192 on CUDA, 2048 on a CPU.
    """
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(PRECISIONS[precision]) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, str(device), seconds)["median_ms"] * 1000


def whole_frames(tracker: Tracker, seconds: float) -> dict[str, float]:
    """As ``frame_times``, and the median of each stage by itself."""
    row = frame_times(tracker, seconds)
    frame = np.random.default_rng(0).integers(0, 255, (*FRAME_HW, 3)).astype(np.uint8)
    tracker.init(frame, BOX_XYWH)
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
    device = torch.device(tracker.device)
    search = example(tracker.model_config, 1, device)[0]
    model: Any = engine.model
    gathered = zip(*target.references.gather(tracker.config.reference_rule), strict=True)
    window: Any = engine.window
    settings = window, tracker.config.window_weight, search_hw
    if isinstance(engine, HostEngine):
        arrays = search.numpy(), *(np.stack(each)[None] for each in gathered), target.state_token
        score_map, boxes, _ = model(*arrays)
        return {
            "crop": lambda: normalize(crop_image(frame, crop, search_hw, target.background)),
            "network": lambda: model(*arrays),
            "choice": lambda: select_box(score_map, boxes, *settings),
        }
    inputs = search, *(torch.stack(each)[None] for each in gathered), target.state_token
    prediction = model(*inputs)
    numbers = crop_numbers(FRAME_HW, crop, target.background)[None]  # (1, 13)
    parts = (
        ("crop", lambda numbers: (engine.crops(numbers, search_hw),), ()),
        ("network", lambda _, *given: tuple(model(*given)), inputs),
        (
            "choice",
            lambda _, *given: select_box_tensor(Prediction(*given), *settings),
            tuple(prediction),
        ),
    )
    found: dict[str, Callable[[], Any]] = {"upload": lambda: engine.set_frames([frame])}
    for name, function, others in parts:
        if engine.may_capture:
            function = CapturedGraph(function, numbers, others, device)
            found[name] = partial(function, numbers, *others)
        else:
            sent = torch.from_numpy(numbers).to(device)
            found[name] = partial(function, sent, *others)
    return found


def table(rows: list[dict[str, Any]], rates: dict[str, float]) -> Table:
    """Rows for the terminal; ``rates`` is ``best_rate`` by precision."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for title in ("model", "layout"):
        shown.add_column(title)
    for title in ("precision", "batch", "ms", "95 %", "fps", "TFLOP/s", "of best"):
        shown.add_column(title, justify="right")
    for row in rows:
        fps = 1000 * row["batch"] / row["median_ms"]
        times = (f"{each:.1f}" for each in (row["median_ms"], row["p95_ms"], fps))
        shares: tuple[str, ...] = ()
        if row.get("flop"):
            rate = row["flop"] / row["median_ms"] * 1000
            shares = f"{rate / 1e12:.2f}", f"{rate / rates[row['precision']]:.0%}"
        about = row["model"], row["layout"], row["precision"], str(row["batch"])
        shown.add_row(*about, *times, *shares)
    return shown


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Frames per second of every row with one target, as a PNG."""
    single = [row for row in rows if row["batch"] == 1]
    figure = Figure(figsize=(9, 0.6 + 0.28 * len(single)), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row['model']}, {row['layout']}, {row['precision']}" for row in single]
    colors = ["C0" if row["layout"] in ("fused", "graph", "tracker") else "0.7" for row in single]
    speeds = [1000 / row["median_ms"] for row in single]
    bars = axes.barh(labels[::-1], speeds[::-1], color=colors[::-1])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set(xlabel="frames per second", xscale="log", title=title)
    write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=120))


if __name__ == "__main__":
    run_command(lambda: typer.run(benchmark_layouts))
