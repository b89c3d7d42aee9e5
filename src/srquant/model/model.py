"""A super-resolution network, float or quantized, ready to be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from srquant.fetching import resolve
from srquant.model.adapting import feature_bits, image_factor
from srquant.model.layer import CodedWeight
from srquant.model.observing import to_network
from srquant.model.receptive_field import receptive_field
from srquant.model.record import Record
from srquant.model.storage import is_model_file, read_model, write_model
from srquant.model.swapping import copy_network, quant_layers
from srquant.networks.base import SRNetwork
from srquant.networks.custom import CustomConfig, CustomNetwork, plain_module
from srquant.networks.opening import load_network, save_network
from srquant.networks.recognising import network_settings
from srquant.quantizers import Quantizer
from srquant.support.errors import ArgumentError
from srquant.support.tensors import channels_last, plain_arithmetic
from srquant.support.wording import counted


@dataclass(frozen=True)
class Layer:
    """One quantized multiplication, for reports. Bits and ranges; the weight's are None for an attention product."""

    name: str
    left: Quantizer
    right: Quantizer
    weights: int
    """Elements of the weight."""
    biases: int

    @property
    def weight_bits(self) -> int | None:
        """Bits of the weight."""
        return self.right.bits if self.weights else None


@dataclass(frozen=True)
class Sizes:
    """Parameters and bits, counted.

    ``ratio`` counts the weights of quantized layers at their bits and everything else at 32; ``ratio_with_biases``
    counts the biases of quantized layers at the weights' bits too, which is what 2DQuant prints (though they stay
    float). Source: 2DQuant, P / (P − Q + Q·b/32).
    """

    parameters: int
    quantized: int
    """Weights that are codes."""
    stored_bits: int
    """Codes, float parameters and buffers, and bounds: what a file must hold at least."""
    ratio: float
    ratio_with_biases: float


@dataclass(frozen=True)
class Model:
    """A network and how it came about.

    Calling it turns ``n 3 h w`` RGB images in [0, 1] into ``n 3 scale·h scale·w`` in about [0, 1], not clamped.
    A model is never changed: every operation returns a new one. Two models of the same weights give the same bits,
    however each came about, because a model's weights lie in memory in one way.

    Args:
        network: Float, or with quantized layers. The model takes it over: in evaluation mode, nothing left to learn,
            convolutions channels last (several times faster on CPUs).
        source: Name of the file of float weights.
        record: How it was quantized; None for a float model.
    """

    network: SRNetwork
    source: str
    record: Record | None = None

    def __post_init__(self) -> None:
        channels_last(self.network.eval().requires_grad_(False))

    def __repr__(self) -> str:
        """A few lines, however large the network is."""
        sizes = self.sizes()
        lines = [
            f"Model: {self.network.name} ×{self.scale} from {self.source}",
            f"  {sizes.parameters:,} parameters, images in [0, {self.network.value_range:g}], on {self.device}",
        ]
        if self.record is None:
            return "\n".join([*lines, f"  float, {sizes.stored_bits // 8:,} bytes"])
        widths = Counter(
            f"W{layer.right.bits}A{layer.left.bits}" if layer.weights else f"A{layer.left.bits}"
            for layer in self.layers()
        )
        bits = ", ".join(f"{width} in {counted(count, 'layer')}" for width, count in widths.most_common())
        return "\n".join(
            [
                *lines,
                f"  quantized by {self.record.method}: {bits}; {self.record.coverage:.1%} of the multiply-adds",
                f"  {sizes.stored_bits // 8:,} bytes, {sizes.ratio:.1f} times smaller by weights than float32",
            ]
        )

    @classmethod
    def wrap(cls, module: nn.Module, scale: int, value_range: float = 1.0, alignment: int = 1) -> Model:
        """A model of any ``nn.Module``.

        Args:
            module: ``n 3 h w`` to ``n 3 scale·h scale·w`` in [0, value_range]; it is copied. One of a single channel is
                run on luma, and colours are enlarged bicubically; one whose output is no larger than its input is given
                images that are enlarged so (see :class:`~srquant.networks.custom.CustomNetwork`).
            scale: How many times larger the output is.
            value_range: Largest value of images in the network: 1 or 255.
            alignment: What tile corners must be multiples of; the window of a window-attention network.

        Raises:
            ArgumentError: The module does not enlarge an RGB image by the scale.
        """
        config = CustomConfig(scale, value_range, alignment)
        network = CustomNetwork(copy_network(plain_module(module)).float(), config)
        return cls(network, type(module).__name__)

    @property
    def scale(self) -> int:
        """How many times larger the output is."""
        return self.network.scale

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(iter(self.network.parameters())).device

    @cached_property
    def receptive_field(self) -> int | None:
        """How many pixels of the input, in each direction, can change an output pixel; None where it is not bounded.

        Of a network that does not describe itself it is measured, in about the time that an image of 160×160 takes; see
        :func:`~srquant.model.receptive_field.receptive_field`.
        """
        return receptive_field(self.network)

    def __call__(self, images: Tensor) -> Tensor:
        """Enlarge images; see the class. The result is on the network's device, and in float32 under autocast too."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ArgumentError(f"images must be n 3 h w, at least one pixel; got {list(images.shape)}")
        with plain_arithmetic(self.device), torch.inference_mode():
            return self.network(to_network(self.network, images.float())).div_(self.network.value_range)

    @property
    def bits_follow_image(self) -> bool:
        """Whether the bits of activations depend on the image; such a model cannot be exported."""
        return image_factor(self.network) is not None

    def feature_bits(self, images: Tensor) -> Tensor | None:
        """Mean bits of the activations that each image is computed with; None where they do not follow it. See
        :func:`~srquant.model.adapting.feature_bits`.

        Args:
            images: ``n 3 h w`` in [0, 1], as they are passed to the model: tiles, where an image is cut.
        """
        with torch.inference_mode():
            return feature_bits(self.network, images.float())

    def to(self, device: torch.device | str) -> Model:
        """The same model on another device."""
        return Model(copy_network(self.network).to(device), self.source, self.record)

    def save(self, path: Path | str) -> Path:
        """Write the model: real low-bit codes if it is quantized, float weights if not.

        Raises:
            ArgumentError: The name does not end in ``.safetensors``.
            OutputError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ArgumentError(f"{path}: models are written as .safetensors files; give a name that ends so")
        if self.record is None:
            save_network(path, self.network, {})
        else:
            write_model(path, self.network, self.record)
        return path

    def layers(self) -> list[Layer]:
        """The quantized multiplications, in the network's order."""
        found: list[Layer] = []
        for name, layer in quant_layers(self.network).items():
            right = layer.right
            coded = isinstance(right, CodedWeight)
            quantizer = right if isinstance(right, Quantizer) else right.quantizer
            weights = right.get_buffer("codes").numel() if coded else 0
            found.append(Layer(name, layer.left, quantizer, weights, 0 if layer.bias is None else layer.bias.numel()))
        return found

    def sizes(self) -> Sizes:
        """Count parameters and bits."""
        layers = self.layers()
        codes = Counter({layer.right.bits: 0 for layer in layers})
        biases = Counter(codes)
        bounds = 0
        for layer in layers:
            codes[layer.right.bits] += layer.weights
            biases[layer.right.bits] += layer.biases if layer.weights else 0
            bounds += sum(p.numel() for q in (layer.left, layer.right) for p in q.parameters())
        quantized, narrow = sum(codes.values()), sum(bits * count for bits, count in codes.items())
        looking = image_factor(self.network)
        bounds += 0 if looking is None else sum(p.numel() for p in looking.parameters())
        floats = sum(p.numel() for p in self.network.parameters()) - bounds
        parameters = quantized + floats
        buffers = {k: v for k, v in self.network.state_dict().items() if not k.endswith(".right.codes")}
        stored = sum(8 * v.numel() * v.element_size() for v in buffers.values())
        narrow_biases = sum(bits * count for bits, count in biases.items())
        wide = 32 * (floats - sum(biases.values()))
        return Sizes(
            parameters=parameters,
            quantized=quantized,
            stored_bits=narrow + stored,
            ratio=32 * parameters / (32 * floats + narrow),
            ratio_with_biases=32 * parameters / (wide + narrow + narrow_biases),
        )


def load(
    path: Path | str,
    *,
    value_range: float | None = None,
    settings: Iterable[str] = (),
    network: nn.Module | None = None,
) -> Model:
    """Open a float network in any published layout, or a model this project saved. Opening never runs code.

    Args:
        path: The file, or a name that ``srquant fetch`` lists, such as ``edsr-baseline-x4``; it is fetched if need be.
        value_range: Largest value of images in a float network, 1 or 255, where its weights do not tell; the same as
            the setting ``value_range=…``.
        settings: What else a float network's weights do not tell, as ``field=value``: ``residual_scale=0.1``. The
            fields are those of ``model.network.config``, which a saved model keeps.
        network: The float module of a model that was made with :meth:`Model.wrap`.

    Raises:
        ArgumentError: A setting names no field, breaks its field's rule, or is given for a quantized model; the module
            is missing or not needed.
        NetworkError: The weights cannot be opened as a network.
        ModelFileError: The saved model is damaged or of a newer format.
        FetchError: What has this name cannot be fetched.
        MissingExtraError: The network needs an optional dependency.

    Warns:
        WeightsWarning: The file holds several sets of weights, or more than the network's; what was taken is named.
    """
    said = network_settings(value_range, settings)
    path = resolve(path, "network")
    if not is_model_file(path):
        return Model(load_network(path, settings=said), path.name)
    if said:
        raise ArgumentError(
            f"{said[-1]} is for float networks; {path} is quantized and keeps what its network was opened with: "
            f"leave it out, or quantize the float network again with it"
        )
    opened, record = read_model(path, network)
    return Model(opened, record.source, record)
