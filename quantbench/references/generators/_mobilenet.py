"""The body of MobileNet-v1 (Howard et al. 2017, table 1), which the classifier and the detector share."""

from __future__ import annotations

from quantbench.references.generators._network import Network, Tensor

__all__ = ["conv_bn_relu6", "mobilenet_body"]

_LIFT = 1.5

_LAYERS = (  # channels, stride of each depthwise separable layer
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)


def mobilenet_body(net: Network, x: Tensor, scope: str) -> list[Tensor]:
    """What each of the 13 depthwise separable layers puts out."""
    x = conv_bn_relu6(net, x, 32, 3, 2, f"{scope}/Conv2d_0")
    outputs = []
    for number, (channels, stride) in enumerate(_LAYERS, 1):
        name = f"{scope}/Conv2d_{number}"
        y = net.conv(x, x.sample.shape[1], 3, f"{name}_depthwise", stride=stride, depthwise=True)
        y = net.relu6(net.batch_norm(y, f"{name}_depthwise/BatchNorm", lift=_LIFT), f"{name}_depthwise/Relu6")
        x = conv_bn_relu6(net, y, channels, 1, 1, f"{name}_pointwise")
        outputs.append(x)
    return outputs


def conv_bn_relu6(net: Network, x: Tensor, channels: int, kernel: int, stride: int, name: str) -> Tensor:
    """Convolution, batch norm and ReLU6; `channels` at full width."""
    x = net.conv(x, net.channels(channels), kernel, name, stride=stride)
    return net.relu6(net.batch_norm(x, f"{name}/BatchNorm", lift=_LIFT), f"{name}/Relu6")
