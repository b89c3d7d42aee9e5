"""The model that a file describes: with weights of reduced range it is another one than the model that was exported."""

from __future__ import annotations

from torch import Tensor, nn

from srquant.engines.operands import Activations, ExportSettings, IntegerOperands, Range
from srquant.model import Model
from srquant.model.layer import CodedWeight
from srquant.model.swapping import copy_network, quant_layers, replace, without_activation_quantizers


def as_written(model: Model, form: Range, activations: Activations = "int8") -> Model:
    """The model with the operands that its exported file has. A right engine computes this one.

    Args:
        model: Quantized, on integers; it is left as it is.
        form: Range of the file's weights. In full range they are the model's own, and the model itself is returned.
        activations: Of the file.

    Raises:
        ArgumentError: The model does not fit integers.
    """
    if activations == "float":
        return Model(without_activation_quantizers(model.network), model.source, model.record)
    if form != "reduced":
        return model
    network = copy_network(model.network)
    for name, layer in quant_layers(network).items():
        if isinstance(layer.right, CodedWeight):
            integers, scale = IntegerOperands(name, layer, ExportSettings(range=form)).weight_integers()
            weight = integers.float() * scale.reshape(-1, *[1] * (integers.ndim - 1))
            replace(network, f"{name}.right", FixedWeight(weight))
    return Model(network, model.source, model.record)


class FixedWeight(nn.Module):
    """A weight that neither changes nor has codes.

    Args:
        weight: Float, in the shape of the layer's weight.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self) -> Tensor:
        return self.get_buffer("weight")
