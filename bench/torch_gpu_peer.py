"""The same steps in PyTorch on the GPU, three ways, one line of JSON a case, for bench/gpu.cpp to be read beside:
shipped: the arithmetic of diffusers' scheduler, its table on the CPU and the corrector's noise drawn there and copied;
eager: the same with table and noise on the device; compiled: that under torch.compile, captured in a CUDA graph.

"flushed_us" is of one call after the L2 cache was flushed, which also hides the time that Python takes to enqueue it;
"warm_us" of calls on end.
"""

import json
import statistics

import torch

SHAPES = [(16, 3, 32, 32), (64, 3, 32, 32), (8, 3, 256, 256), (16, 3, 256, 256), (4, 3, 1024, 1024)]
DEVICE = "cuda"
SNR = 0.15


def step_pred(model_output, sample, diffusion):
    drift = torch.zeros_like(sample) - diffusion**2 * model_output
    mean = sample - drift
    return mean + diffusion * torch.randn_like(sample), mean


def corrected(model_output, sample, noise):
    grad_norm = torch.norm(model_output.reshape(model_output.shape[0], -1), dim=-1).mean()
    noise_norm = torch.norm(noise.reshape(noise.shape[0], -1), dim=-1).mean()
    step = (SNR * noise_norm / grad_norm) ** 2 * 2
    step = (step * torch.ones(sample.shape[0], device=sample.device))[:, None, None, None]
    return sample + step * model_output + ((step * 2) ** 0.5) * noise


def step_correct(model_output, sample):
    return corrected(model_output, sample, torch.randn_like(sample))


def step_pred_shipped(model_output, sample, sigmas, timestep):
    times = timestep * torch.ones(sample.shape[0], device=sample.device)
    index = (times * (len(sigmas) - 1)).long().to(sigmas.device)
    sigma = sigmas[index].to(sample.device)
    adjacent = torch.where(index == 0, torch.zeros_like(sigmas[index]), sigmas[index - 1]).to(sample.device)
    return step_pred(model_output, sample, ((sigma**2 - adjacent**2) ** 0.5)[:, None, None, None])


def step_correct_shipped(model_output, sample):
    return corrected(model_output, sample, torch.randn(sample.shape).to(sample.device))


def captured(function, *args):
    """A compiled function in a CUDA graph; its inputs stay where they are, so that nothing is copied to them."""
    compiled = torch.compile(function, dynamic=False)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            compiled(*args)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = compiled(*args)
    return lambda: (graph.replay(), kept)


def timed(call, before=None, calls=1, rounds=20, warmup=5):
    for _ in range(warmup):
        call()
    times = []
    for _ in range(rounds):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        if before is not None:
            before()
        start.record()
        for _ in range(calls):
            call()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1000 / calls)
    return statistics.median(times)


@torch.no_grad()
def main():
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__}), flush=True)
    sigmas = torch.exp(torch.linspace(-4.6, 7.2, 2000))
    cold = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
    for shape in SHAPES:
        x, m = torch.randn(shape, device=DEVICE), torch.randn(shape, device=DEVICE)
        d = torch.full((shape[0], 1, 1, 1), 0.6, device=DEVICE)
        ways = {
            "stepPred": {
                "shipped": lambda: lambda: step_pred_shipped(m, x, sigmas, 0.5),
                "eager": lambda: lambda: step_pred(m, x, d),
                "compiled": lambda: captured(step_pred, m, x, d),
            },
            "stepCorrect": {
                "shipped": lambda: lambda: step_correct_shipped(m, x),
                "eager": lambda: lambda: step_correct(m, x),
                "compiled": lambda: captured(step_correct, m, x),
            },
        }
        for op, made in ways.items():
            for way, make in made.items():
                line = {"op": op, "case": "x".join(map(str, shape)), "torch": way}
                try:
                    call = make()
                    line["flushed_us"] = round(timed(call, before=cold.zero_), 2)
                    line["warm_us"] = round(timed(call, calls=10), 2)
                except Exception as error:  # one way that a version cannot go leaves the others
                    line["error"] = f"{type(error).__name__}: {error}"[:300]
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
