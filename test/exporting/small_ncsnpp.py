"""Exports a small network with the parts of NCSN++ by examples/export_ncsnpp.py, and writes what PyTorch computes with it.

    python3 small_ncsnpp.py OUT

OUT becomes a pipeline's folder, with expected.json and expected.safetensors in it. Only torch is needed: the few functions of
diffusers that the exporter calls are written here anew, around a network of our own.
"""
import json
import math
import os
import struct
import sys
import types

import torch
import torch.nn.functional as F
from torch import nn

sys.dont_write_bytecode = True
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path += [os.path.join(root, "examples"), os.path.join(root, "bench")]
import export_ncsnpp as exporter  # noqa: E402
import torch_peer as reference  # noqa: E402

CHANNELS, SIZE = 8, 8
TAPS = (1, 4, 3, 2)  # not symmetric, so that a mirrored filter shows


def upfirdn2d(x, kernel, up=1, down=1, pad=(0, 0)):
    """Upsampling, FIR filter and downsampling by their definition, one after the other."""
    batch, channels, height, width = x.shape
    spread = torch.zeros(batch, channels, height * up, width * up)
    spread[:, :, ::up, ::up] = x
    spread = F.pad(spread, (pad[0], pad[1], pad[0], pad[1]))
    size = len(kernel)
    rows, columns = spread.shape[2] - size + 1, spread.shape[3] - size + 1
    out = torch.zeros(batch, channels, rows, columns)
    for i in range(size):
        for j in range(size):
            out += kernel[size - 1 - i][size - 1 - j] * spread[:, :, i : i + rows, j : j + columns]
    return out[:, :, ::down, ::down]


def check_filters():
    """The exporter's convolutions against the definition, for every way to resample and to pad."""
    x, kernel = torch.randn(2, 3, 6, 5), torch.randn(4, 4)
    for up in (1, 2, 3):
        for down in (1, 2):
            for pad in ((0, 0), (1, 1), (2, 1), (1, 2), (4, 3)):
                found, truth = (f(x, kernel, up, down, pad) for f in (exporter.upfirdn2d, upfirdn2d))
                assert found.shape == truth.shape and (found - truth).abs().max() < 1e-5, (up, down, pad)


filters = types.ModuleType("diffusers.models.filters")
filters.upfirdn2d_native = upfirdn2d


class Resampling(nn.Module):
    """Twice or half the height and width, by the function that the exporter replaces."""

    def __init__(self, up):
        super().__init__()
        self.up = up

    def forward(self, x):
        kernel = torch.outer(torch.tensor(TAPS), torch.tensor(TAPS)) / sum(TAPS) ** 2
        if self.up:
            return filters.upfirdn2d_native(x, kernel * 4, up=2, pad=(2, 1))
        return filters.upfirdn2d_native(x, kernel, down=2, pad=(1, 1))


class Halving(nn.Module):
    """Half the height and width, with taps and padding computed from a buffer in each call, as in EDM's networks."""

    def __init__(self):
        super().__init__()
        self.register_buffer("taps", torch.outer(torch.tensor(TAPS), torch.tensor(TAPS))[None, None] / sum(TAPS) ** 2)

    def forward(self, x):
        taps = self.taps.to(x.dtype).tile([x.shape[1], 1, 1, 1])
        return F.conv2d(x, taps, groups=x.shape[1], stride=2, padding=(taps.shape[-1] - 1) // 2)


class Block(nn.Module):
    """A residual block, told of the noise level, that may resample."""

    def __init__(self, before, after, resampling=None):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, before), nn.GroupNorm(4, after)
        self.conv1, self.conv2 = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        self.level, self.skip = nn.Linear(4 * CHANNELS, after), nn.Conv2d(before, after, 1)
        self.resampling = resampling or nn.Identity()

    def forward(self, x, level):
        h = self.conv1(self.resampling(F.silu(self.norm1(x)))) + self.level(level)[:, :, None, None]
        return (self.skip(self.resampling(x)) + self.conv2(F.silu(self.norm2(h)))) / math.sqrt(2)


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.parts, self.out = nn.GroupNorm(4, channels), nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        batch, channels, height, width = x.shape
        query, key, value = self.parts(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, -1)
        weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(channels), -1)
        return (x + self.out(weights @ value).transpose(1, 2).reshape(batch, channels, height, width)) / math.sqrt(2)


class Fourier(nn.Module):
    """Sine and cosine of ln sigma at random frequencies."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(16 * torch.randn(CHANNELS), requires_grad=False)

    def forward(self, sigma):
        angles = 2 * math.pi * sigma.log()[:, None] * self.weight[None, :]
        return torch.cat([angles.cos(), angles.sin()], 1)


class SmallNcsnpp(nn.Module):
    """Two levels, with the picture itself carried beside them in smaller sizes (skip branches), and the score over sigma."""

    config = types.SimpleNamespace(in_channels=1, block_out_channels=(CHANNELS, 2 * CHANNELS), time_embedding_type="fourier")

    def __init__(self):
        super().__init__()
        wide = 2 * CHANNELS
        self.time_proj = Fourier()
        self.level = nn.Sequential(nn.Linear(wide, 4 * CHANNELS), nn.SiLU(), nn.Linear(4 * CHANNELS, 4 * CHANNELS))
        self.conv_in, self.first = nn.Conv2d(1, CHANNELS, 3, padding=1), Block(CHANNELS, CHANNELS)
        self.down, self.smaller = Block(CHANNELS, wide, Resampling(up=False)), Halving()
        self.skip_in, self.attention, self.middle = nn.Conv2d(1, wide, 1), Attention(wide), Block(wide, wide)
        self.skip_out, self.larger = nn.Conv2d(wide, 1, 3, padding=1), Resampling(up=True)
        self.up, self.last = Block(wide, CHANNELS, Resampling(up=True)), Block(wide, CHANNELS)
        self.norm_out, self.conv_out = nn.GroupNorm(4, CHANNELS), nn.Conv2d(CHANNELS, 1, 3, padding=1)

    def forward(self, sample, timestep):
        level = F.silu(self.level(self.time_proj(timestep).to(sample.dtype)))
        sigma = timestep.view(-1, 1, 1, 1)
        near = sample / (1 + sigma**2).sqrt()
        x = first = self.first(self.conv_in(near), level)
        x = self.middle(self.attention(self.down(x, level) + self.skip_in(self.smaller(near))), level)
        picture = self.larger(self.skip_out(x))
        x = self.last(torch.cat([self.up(x, level), first], 1), level)
        # Without training the score would lead away from all data. -near / sigma leads back, and a run stays bounded.
        score = (picture + self.conv_out(F.silu(self.norm_out(x))) - near) / sigma
        return types.SimpleNamespace(sample=score)

    def save_config(self, folder):
        write_json(os.path.join(folder, "config.json"), {"in_channels": 1, "sample_size": SIZE})


class ScoreSdeVeScheduler:
    config = types.SimpleNamespace(sigma_min=reference.SIGMA_MIN, sigma_max=reference.SIGMA_MAX)

    def save_pretrained(self, folder):
        write_json(os.path.join(folder, "scheduler_config.json"), {"_class_name": "ScoreSdeVeScheduler"})


class ScoreSdeVePipeline:
    @classmethod
    def from_pretrained(cls, _checkpoint):
        torch.manual_seed(0)
        pipeline = cls()
        pipeline.unet, pipeline.scheduler = SmallNcsnpp(), ScoreSdeVeScheduler()
        return pipeline

    def save_config(self, folder):
        write_json(os.path.join(folder, "model_index.json"), {"_class_name": "ScoreSdeVePipeline"})


def run(network, steps, batch, seed):
    """diffusers' ScoreSdeVePipeline: what it gives before it is clamped to [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    timesteps = reference.set_timesteps(steps)
    discrete, sigmas = reference.set_sigmas(steps, timesteps)
    x = torch.randn(batch, 1, SIZE, SIZE, generator=generator) * reference.SIGMA_MAX
    for t, sigma in zip(timesteps, sigmas):
        levels = sigma * torch.ones(batch)
        x = reference.step_correct(network(x, levels).sample, x, generator)
        x, mean = reference.step_pred(network(x, levels).sample, t, x, timesteps, discrete, generator)
    return mean


def write_safetensors(file, tensors):
    header, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            out.write(struct.pack(f"<{tensor.numel()}f", *tensor.flatten().tolist()))


def write_json(file, value):
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file, "w") as out:
        json.dump(value, out, indent=2)
        out.write("\n")


def main(out):
    diffusers = types.ModuleType("diffusers")
    diffusers.ScoreSdeVePipeline, diffusers.ScoreSdeVeScheduler = ScoreSdeVePipeline, ScoreSdeVeScheduler
    sys.modules.update({"diffusers": diffusers, filters.__name__: filters})

    levels = torch.tensor([0.01, 0.5, 30.0, 1348.0])
    case = {"levels": levels.tolist(), "sizes": [SIZE, 2 * SIZE, 3 * SIZE], "steps": 10, "batch_size": 3, "seed": 42}
    with torch.no_grad():
        unet = ScoreSdeVePipeline.from_pretrained(out).unet.eval()
        tensors = {}
        for size in case["sizes"]:
            sample = exporter.samples_at(levels, 1, size, seed=size)
            tensors.update({f"sample_{size}": sample, f"score_{size}": unet(sample, levels).sample})
        tensors["samples"] = run(unet, case["steps"], case["batch_size"], case["seed"])

    check_filters()
    exporter.main(["checkpoint", out])
    write_json(os.path.join(out, "expected.json"), {**case, "torch": torch.__version__})
    write_safetensors(os.path.join(out, "expected.safetensors"), tensors)


if __name__ == "__main__":
    main(sys.argv[1])
