"""Options that several sub-commands share, one each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spmtrack_core.data.catalog import READERS

EVALUATED = (*(name for name in READERS if name != "coco"), "synthetic")
"""Datasets that can be evaluated on: those with videos, and the built-in scene."""


def _check_dataset(name: str) -> str:
    if name not in (*EVALUATED, *READERS):  # what is wrong with still images is told later
        raise ValueError(f"dataset must be one of {', '.join(EVALUATED)}; got {name!r}")
    return name


Source = Annotated[
    str,
    typer.Argument(
        help="Video file, folder of images, camera (0 or /dev/video0), address (rtsp://, "
        "http://, udp://) or 'synthetic'."
    ),
]
Weights = Annotated[
    str, typer.Option(help="Weights: a bundled name (nano), a checkpoint or an exported file.")
]
SeveralWeights = Annotated[
    list[str] | None,
    typer.Option("--weights", help="Weights, as for track; may be repeated.", show_default="nano"),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str, typer.Option(help="Precision of the network: float32, bfloat16 or float16.")
]
Runtime = Annotated[
    str,
    typer.Option(
        help="What computes the network: torch, openvino (CPU, an extra), auto: OpenVINO where "
        "it is installed; of an .onnx file onnxruntime or openvino, of an .engine file tensorrt."
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        help="weights: window, boxes, references and recovery as the weights say; published: as "
        "the published tracker."
    ),
]
Threads = Annotated[
    int,
    typer.Option(help="CPU threads of the network; 0: as many as are worth it."),
]
Trunk = Annotated[
    str | None, typer.Option(help="File of the DINOv2 trunk, for weights without one.")
]
Dataset = Annotated[
    str,
    typer.Argument(
        help=f"Dataset: {', '.join(EVALUATED)}; folder is your own, synthetic the built-in scene.",
        callback=_check_dataset,
    ),
]
Root = Annotated[Path | None, typer.Option(help="Folder of the dataset.")]
Split = Annotated[str, typer.Option(help="Split of the dataset, such as test or val.")]
Exclude = Annotated[
    str | None, typer.Option(help="Text file of sequences to leave out, one name a line.")
]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")]
OutputFile = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
