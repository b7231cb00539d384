"""Exports a network of diffusers' ScoreSdeVePipeline (NCSN++) to a folder that score-sde loads.

    pip install torch diffusers onnxruntime
    python export_ncsnpp.py google/ncsnpp-church-256 church

    // then, in Node.js
    const pipeline = await ScoreSdeVePipeline.fromPretrained('church');

The checkpoint is a folder, or a name of the Hub that diffusers downloads, in either layout: with unet/ and scheduler/, or with
all files beside model_index.json. docs/exporting.md says more, also about networks of other kinds.
"""
import argparse
import contextlib
import importlib.util
import inspect
import os
import sys
import warnings

import torch
import torch.nn.functional as F


def upfirdn2d(x, kernel, up=1, down=1, pad=(0, 0)):
    """A FIR filter for resampling: zeros between the pixels, padding, the filter, then every down-th pixel.

    It computes what diffusers' upfirdn2d_native does, and takes the same arguments. That function reads the filter's size from a
    tensor, which an exporter cannot follow. Here the filter is one depthwise convolution whose taps are constants.

    x: [batch, channels, height, width]; kernel: [size, size], the same for all channels; pad: pixels before and after.
    """
    taps, channels = kernel.tolist(), int(x.shape[1])
    before, after = (int(pixels) for pixels in pad)

    def weight(rows):
        return torch.tensor([[rows]] * channels, dtype=x.dtype, device=x.device)

    if up == 1:
        if before != after or before < 0:
            x, before = F.pad(x, (before, after, before, after)), 0
        mirrored = [row[::-1] for row in taps[::-1]]  # a convolution of PyTorch's is a correlation
        return F.conv2d(x, weight(mirrored), stride=down, padding=before, groups=channels)
    # The transposed convolution gives all pixels that the filter reaches. The padding says which of them stay.
    first, last = len(taps) - 1 - before, len(taps) - up - after
    same = first if first == last and first > 0 else 0
    x = F.conv_transpose2d(x, weight(taps), stride=up, padding=same, groups=channels)
    if (first, last) != (same, same):
        x = F.pad(x, (-first, -last, -first, -last))
    return x if down == 1 else x[:, :, ::down, ::down]


@contextlib.contextmanager
def constant_convolutions():
    """Meanwhile, convolutions take weights that are no parameters as constants, and paddings as numbers.

    EDM's and k-diffusion's networks compute both from the shapes of tensors, which an exporter cannot follow.
    """
    own = {name: getattr(F, name) for name in ("conv2d", "conv_transpose2d")}

    def constant(convolution):
        def call(x, weight, bias=None, stride=1, padding=0, *others, **named):
            if not isinstance(weight, torch.nn.Parameter):
                weight = torch.tensor(weight.detach().cpu().numpy(), device=x.device)
            if isinstance(padding, torch.Tensor):
                padding = int(padding)
            return convolution(x, weight, bias, stride, padding, *others, **named)

        return call

    for name, convolution in own.items():
        setattr(F, name, constant(convolution))
    try:
        yield
    finally:
        for name, convolution in own.items():
            setattr(F, name, convolution)


def export(network, sample, sigma, file, opset=17, further=None):
    """Writes network(sample, sigma) -> score as ONNX, with the names that score-sde looks for, for any batch, height and width.

    further: the network's other arguments, in their order, by the names that they are to have; their first axis is the batch.
    """
    further = further or {}
    axes = {0: "batch", 2: "height", 3: "width"}
    # The second exporter, of PyTorch 2.5 and later, takes several times as long and may freeze sizes.
    first_exporter = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with torch.no_grad(), constant_convolutions(), warnings.catch_warnings():
        # The trace follows one size. main() checks another.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network.eval(),
            (sample, sigma, *further.values()),
            file,
            input_names=["sample", "timestep", *further],
            output_names=["out_sample"],
            dynamic_axes={"sample": axes, "out_sample": axes, **{name: {0: "batch"} for name in ("timestep", *further)}},
            opset_version=opset,
            **first_exporter,
        )


def difference(found, expected):
    """The largest difference of each sample, as a part of its largest value."""
    found, expected = found.float().flatten(1), expected.float().flatten(1)
    return (found - expected).abs().amax(1) / expected.abs().amax(1)


def samples_at(sigma, channels, size, seed=0):
    """What a network sees at these noise levels: a grey picture and noise."""
    noise = torch.randn(len(sigma), channels, size, size, generator=torch.Generator().manual_seed(seed))
    return 0.5 + sigma.view(-1, 1, 1, 1) * noise


def run_onnx(file, sample, sigma, further=None):
    """The score by ONNX Runtime. further: the network's other arguments by their names, as in export."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = {"sample": sample, "timestep": sigma, **(further or {})}
    (score,) = session.run(["out_sample"], {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(score)


class Score(torch.nn.Module):
    """A UNet2DModel as a function of tensors that gives a tensor."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep):
        return self.unet(sample, timestep).sample


def replace_filters():
    """Puts upfirdn2d in the place of diffusers' own, wherever that was imported."""
    name, found = "upfirdn2d_native", 0
    for path, module in list(sys.modules.items()):
        if path.startswith("diffusers.models.") and name in vars(module):
            setattr(module, name, upfirdn2d)
            found += 1
    if found == 0:
        sys.exit("this version of diffusers has no diffusers.models function upfirdn2d_native to replace")


def load(checkpoint):
    """The pipeline of a checkpoint, or the end of the program with one sentence."""
    try:
        from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler
    except ImportError as error:
        sys.exit(f"diffusers cannot be imported ({error}): pip install diffusers")
    if os.path.exists(checkpoint) and not os.path.isfile(os.path.join(checkpoint, "model_index.json")):
        sys.exit(f"{checkpoint} holds no model_index.json: expected a checkpoint of diffusers' ScoreSdeVePipeline")
    try:
        pipeline = ScoreSdeVePipeline.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        sys.exit(f"diffusers cannot load {checkpoint}: {error}")
    if not isinstance(pipeline.scheduler, ScoreSdeVeScheduler):
        sys.exit(f"{checkpoint}: expected the scheduler ScoreSdeVeScheduler, got {type(pipeline.scheduler).__name__}")
    embedding = pipeline.unet.config.time_embedding_type
    if embedding != "fourier":
        sys.exit(f"{checkpoint}: expected a network that takes sigma (time_embedding_type fourier), got {embedding}")
    return pipeline


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Exports diffusers' NCSN++ to a folder that score-sde loads.")
    parser.add_argument("checkpoint", help="a folder, or a name of the Hub that diffusers downloads")
    parser.add_argument("out", help="the folder to make")
    parser.add_argument("--half", action="store_true", help="weights in float16: half the size, scores within a few percent")
    parser.add_argument("--opset", type=int, default=17, help="version of ONNX's operators, 13 or later (17)")
    args = parser.parse_args(arguments)
    if os.path.isdir(args.out) and os.listdir(args.out):
        sys.exit(f"{args.out} is not empty: name a new folder")
    if os.path.isfile(args.out):
        sys.exit(f"{args.out} is a file: name a new folder")
    if args.opset < 13:
        sys.exit(f"--opset must be 13 or later, got {args.opset}")
    if args.half:
        try:
            F.conv2d(torch.zeros(1, 1, 3, 3).half(), torch.zeros(1, 1, 3, 3).half())
        except RuntimeError:
            sys.exit(f"--half needs a PyTorch that computes float16 on the CPU, 2.3 or later; this is {torch.__version__}")

    pipeline = load(args.checkpoint)
    unet = pipeline.unet.eval()
    channels = unet.config.in_channels
    # The smallest pictures that pass through every level. The exported network takes others, too.
    small = 2 ** len(unet.config.block_out_channels)
    levels = torch.tensor([pipeline.scheduler.config.sigma_min, 1.0, pipeline.scheduler.config.sigma_max])
    sample, other = samples_at(levels, channels, small), samples_at(levels, channels, 3 * small // 2)

    with torch.no_grad():
        before = unet(sample, levels).sample
        replace_filters()
        changed = difference(unet(sample, levels).sample, before).max()
        if not changed < 1e-4:
            sys.exit(f"the filters as convolutions change the score by {changed:.1e}: this version of diffusers has others")
        expected = unet(other, levels).sample
        if args.half:
            # sigma and its embedding stay float32, which more than halves what float16 costs.
            unet.half().time_proj.float()
            sample, other = sample.half(), other.half()

    file = os.path.join(args.out, "unet", "model.onnx")
    os.makedirs(os.path.dirname(file))
    export(Score(unet), sample, levels, file, args.opset)
    pipeline.save_config(args.out)
    pipeline.scheduler.save_pretrained(os.path.join(args.out, "scheduler"))
    unet.save_config(os.path.join(args.out, "unet"))
    print(f"{file}: {sum(weight.numel() for weight in unet.parameters()):,} weights")

    if importlib.util.find_spec("onnxruntime") is None:
        print("not checked, since onnxruntime is not installed: pip install onnxruntime")
        return
    apart = difference(run_onnx(file, other, levels), expected)
    for sigma, part in zip(levels.tolist(), apart.tolist()):
        print(f"at sigma {sigma:g} the score is within {part:.1e} of its largest value")
    if not (apart < (0.1 if args.half else 1e-3)).all():
        sys.exit(f"{file} does not compute what PyTorch does: do not use it")


if __name__ == "__main__":
    main()
