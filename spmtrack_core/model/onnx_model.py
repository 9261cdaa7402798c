"""An exported network, run by ONNX Runtime in place of ``SPMTrack``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spmtrack_core.config import CheckpointConfig
from spmtrack_core.model.spmtrack import Prediction
from spmtrack_core.model.weights import read_description
from spmtrack_core.settings import from_dict

ONNX_FORMAT = "spmtrack-onnx-1"
INPUTS = ("search", "references", "masks", "state_token")
OUTPUTS = ("score_map", "boxes", "next_state_token")
"""In ONNX no output may have the name of an input."""


class OnnxSPMTrack:
    """The network of a file that ``spmtrack export`` wrote, with its settings and provenance.

    Args:
        path: the .onnx file; a second file with its tensors must stay beside it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; CUDA needs onnxruntime-gpu. Inputs and
            outputs are on the CPU in any case.

    Raises:
        FileNotFoundError: the file does not exist.
        RuntimeError: ONNX Runtime is not installed.
        ValueError: the file is broken or not from ``spmtrack export``, or ONNX Runtime has no
            CUDA.

    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        path = Path(path)
        try:
            import onnxruntime  # an extra; other weights save its memory
        except ImportError:
            raise RuntimeError(
                f"{path} needs ONNX Runtime, the extra onnx of this package: "
                "pip install 'spmtrack_ros[onnx]', or only pip install onnxruntime"
            ) from None
        if not path.is_file():
            raise FileNotFoundError(f"no weights at {path}")
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # one setting for both runtimes
        # let threads sleep while they wait for the next frame: the crops need the cores
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only; they are raised as well
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers)
        except Exception as error:  # ONNX Runtime has one exception class for each cause
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"ONNX Runtime cannot read {path}: {reason}") from None
        metadata = self.session.get_modelmeta().custom_metadata_map
        names = tuple(each.name for each in self.session.get_inputs())
        try:
            about = read_description(metadata, ONNX_FORMAT)
            if not about or names != INPUTS:
                raise ValueError(f"it is no {ONNX_FORMAT} network; spmtrack export writes them")
            tree = {part: about[part] for part in ("model", "tracker")}
            config = from_dict(CheckpointConfig, tree)
            self.provenance: dict[str, str] = about["provenance"]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} cannot be used: {error}") from None
        self.model_config = config.model
        self.tracker_config = config.tracker
        self.no_state = torch.zeros(1, 1, config.model.embed_dim)

    @property
    def reference_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what ``encode_reference`` returns for one frame."""
        return (3, *self.model_config.template_hw), self.model_config.template_grid_hw

    def encode_reference(self, references: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        """Reference frames and masks, unchanged: the exported network embeds them itself."""
        return references, masks

    def __call__(self, search: Tensor, *references_and_state: Tensor) -> Prediction:
        """See ``forward``."""
        return self.forward(search, *references_and_state)

    def forward(
        self, search: Tensor, references: Tensor, masks: Tensor, state_token: Tensor | None = None
    ) -> Prediction:
        """Find the target of ``references`` in ``search``; float32, shapes as ``SPMTrack`` has."""
        if state_token is None:  # the network adds it: zeros change nothing
            state_token = self.no_state.expand(search.shape[0], -1, -1)  # (B, 1, C)
        tensors = (search, references, masks, state_token)
        feed = {n: t.float().cpu().numpy() for n, t in zip(INPUTS, tensors, strict=True)}
        return Prediction(*map(torch.from_numpy, self.session.run(OUTPUTS, feed)))


def _providers(device: str, available: Sequence[str]) -> list[object]:
    """ONNX Runtime's names for ``device``: after CUDA the CPU, for operators that CUDA lacks."""
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    has_cuda = "CUDAExecutionProvider" in available
    if kind == "cuda" and not has_cuda:
        raise ValueError("no CUDA in ONNX Runtime: install onnxruntime-gpu instead of onnxruntime")
    if kind == "cpu" or not has_cuda:
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": index or "0"}), "CPUExecutionProvider"]
