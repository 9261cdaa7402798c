"""``spmtrack convert``: bring weights into one file with their settings."""

from __future__ import annotations

from typing import Annotated

import typer

from spmtrack_core.cli.options import OutputFile
from spmtrack_core.files import check_output
from spmtrack_core.model.spmtrack import trainable_names
from spmtrack_core.model.weights import (
    choose_precision,
    load_checkpoint,
    mean_of,
    save_checkpoint,
)
from spmtrack_core.tracking.loading import CHECKPOINT, find_weights, kind_of


def convert(
    source: Annotated[
        str,
        typer.Argument(help="Checkpoint, published or of this package, with a trunk or without."),
    ],
    output: OutputFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings that SOURCE lacks, or that replace its own: "
            "model.search_hw=[252,252] tracker.reference_rule=thirds"
        ),
    ] = None,
    trunk: Annotated[
        str | None,
        typer.Option(
            help="File of the DINOv2 trunk, with DINOv2's or timm's names; without it, timm's "
            "pretrained weights are downloaded from the hub."
        ),
    ] = None,
    adapters_only: Annotated[
        bool, typer.Option("--adapters-only", help="Leave the frozen tensors out.")
    ] = False,
    mean_with: Annotated[
        list[str] | None,
        typer.Option(help="Other weights of the same network: write the mean; may be repeated."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precision of stored linear layers: float32, bfloat16 or float16.")
    ] = "float32",
) -> None:
    """Bring weights into one file with their settings.

    Reads the authors' checkpoints, this package's, and trunks; checks every tensor.
    """
    dtype = choose_precision(precision)
    path, frozen = find_weights(source), find_weights(trunk) if trunk else None
    others = [find_weights(other) for other in mean_with or ()]
    check_output(output, filter(None, (path, frozen, *others)))
    if kind_of(output) != CHECKPOINT:
        raise ValueError(f"{output} is the name of a file of spmtrack export: no checkpoint's")
    read = choose_precision("float32") if others else dtype  # a mean is rounded once, at the end
    loaded = [
        load_checkpoint(each, frozen, read, overrides or (), frozen=not adapters_only)
        for each in (path, *others)
    ]
    checkpoint = mean_of(loaded) if others else loaded[0]
    model, config = checkpoint.model, checkpoint.model_config
    save_checkpoint(output, checkpoint, dtype, adapters_only)
    trained = trainable_names(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    heads = f" of {config.num_heads} heads" if config.trunk == "explicit" else ""
    typer.echo(
        f"{config.trunk}{heads}, {config.experts} experts of rank {config.rank}, scaling "
        f"{config.scaling:g}, template {_size(config.template_hw)}, search "
        f"{_size(config.search_hw)} px; {sum(sizes.values()):,} parameters, "
        f"{sum(sizes[name] for name in trained):,} of them trained"
    )
    rows, columns = config.search_grid_hw
    if rows != columns and checkpoint.trunk and not config.swapped_positions:
        typer.echo(
            f"position table of {rows} x {columns} cells in rows and columns; for weights of the "
            "published code, which swaps the two, add model.swapped_positions=true"
        )
    typer.echo(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB)")


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
