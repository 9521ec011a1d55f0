"""The network of `plain_keras.py` in PyTorch, as it is commonly written."""

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
        features = torch.stack([backend(scans[:, m : m + 1]) for m, backend in enumerate(self.backends)])
        moments = torch.cat([features.mean(dim=0), features.var(dim=0, correction=0)], dim=1)
        return self.frontend(moments)


def dice_plus_cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy minus the mean Dice over subjects and classes."""
    probabilities = torch.softmax(logits, dim=1).flatten(2)
    truth = functional.one_hot(label, logits.shape[1]).permute(0, 3, 1, 2).flatten(2).float()
    overlap, sizes = (probabilities * truth).sum(2), (probabilities + truth).sum(2)
    return functional.cross_entropy(logits, label) - ((2 * overlap + 1e-5) / (sizes + 1e-5)).mean()
