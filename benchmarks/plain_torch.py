"""The network of `plain_keras.py` in PyTorch, as it is commonly written."""

import shutil

import torch
from torch import nn
from torch.nn import functional


def _convolution(channels: int, filters: int, kernel_size: int, relu: bool = True) -> nn.Sequential:
    parts = [
        nn.Conv2d(channels, filters, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1),
    ]
    return nn.Sequential(*parts, *([nn.ReLU()] if relu else []))


class PlainHemis(nn.Module):
    """Scans (b, modality, x, y) → logits (b, class, x, y)."""

    def __init__(self, num_modalities: int, num_classes: int) -> None:
        super().__init__()
        self.backends = nn.ModuleList(
            nn.Sequential(
                _convolution(1, 48, 5), _convolution(48, 48, 5), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)
            )
            for _ in range(num_modalities)
        )
        self.frontend = nn.Sequential(_convolution(96, 16, 5), _convolution(16, num_classes, 21, relu=False))

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        return self.frontend(self._moments(scans))

    def beyond(self, scans: torch.Tensor) -> torch.Tensor:
        """Logits of slices (b, modality, x, y) that repeat their outermost voxels; see `slices.logits_beyond`."""
        x = self._moments(_extended(scans, 0, 0, 9))
        x = self.frontend[0](_extended(x, 4, 5, 4))
        x = self.frontend[1](_extended(x, 2, 2, 20))
        return _extended(x, 10, 10, 0)

    def _moments(self, scans: torch.Tensor) -> torch.Tensor:
        features = torch.stack([backend(scans[:, m : m + 1]) for m, backend in enumerate(self.backends)])
        return torch.cat([features.mean(dim=0), features.var(dim=0, correction=0)], dim=1)


def _extended(x: torch.Tensor, before: int, after: int, pad: int) -> torch.Tensor:
    x = x[:, :, before : x.shape[2] - after, before : x.shape[3] - after]
    return functional.pad(x, (pad,) * 4, mode="replicate") if pad else x


def copy_weights(model, plain: PlainHemis) -> None:
    """Gives a plain model the weights of a built `pimms_tf.models.PIMMS` of the same structure."""
    ours = [layer for backend in model.backends for layer in (backend.conv_1, backend.conv_2)]
    ours += [model.frontend.conv_1, model.frontend.conv_2]
    theirs = [part for backend in plain.backends for part in (backend[0], backend[1])] + list(plain.frontend)
    for layer, (conv, norm, *_) in zip(ours, theirs, strict=True):
        kernel = layer.conv.kernel.numpy().transpose(3, 2, 0, 1).copy()
        pairs = (
            (conv.weight, kernel),
            (norm.weight, layer.norm.gamma.numpy()),
            (norm.bias, layer.norm.beta.numpy()),
            (norm.running_mean, layer.norm.moving_mean.numpy()),
            (norm.running_var, layer.norm.moving_variance.numpy()),
        )
        for to, values in pairs:
            to.data.copy_(torch.from_numpy(values))


def check_compiler() -> None:
    """Nothing, if torch.compile finds the compiler that it needs.

    Raises:
        ImportError: there is none.
    """
    if shutil.which("g++") is None:
        raise ImportError("torch.compile needs g++")


def dice_plus_cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy minus the mean Dice over subjects and classes."""
    probabilities = torch.softmax(logits, dim=1).flatten(2)
    truth = functional.one_hot(label, logits.shape[1]).permute(0, 3, 1, 2).flatten(2).float()
    overlap, sizes = (probabilities * truth).sum(2), (probabilities + truth).sum(2)
    return functional.cross_entropy(logits, label) - ((2 * overlap + 1e-5) / (sizes + 1e-5)).mean()
