"""Times the reference's arithmetic in PyTorch: a request on stdin, medians in microseconds on stdout, both JSON.

The operations are those of diffusers' ScoreSdeVeScheduler, one tensor operation each, with noise from a CPU generator.
"""
import json
import math
import sys
import time

import torch

SNR, SIGMA_MIN, SIGMA_MAX, EPS, STEPS = 0.15, 0.01, 1348.0, 1e-5, 2000


def median(run, seconds):
    for _ in range(3):
        run()
    times = []
    now = time.perf_counter()
    end = now + seconds
    while now < end or len(times) < 11:
        run()
        then = time.perf_counter()
        times.append(then - now)
        now = then
    times.sort()
    return 1e6 * times[(len(times) - 1) // 2]


def set_timesteps(count):
    return torch.linspace(1, EPS, count)


def set_sigmas(count, timesteps):
    discrete = torch.exp(torch.linspace(math.log(SIGMA_MIN), math.log(SIGMA_MAX), count))
    sigmas = torch.tensor([SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** t for t in timesteps])
    return discrete, sigmas


def per_sample(values, like):
    values = values.flatten()
    while values.dim() < like.dim():
        values = values.unsqueeze(-1)
    return values


def step_pred(score, t, sample, timesteps, discrete, generator):
    times = t * torch.ones(sample.shape[0])
    index = (times * (len(timesteps) - 1)).long()
    sigma = discrete[index]
    adjacent = torch.where(index == 0, torch.zeros_like(times), discrete[index - 1])
    diffusion = per_sample((sigma**2 - adjacent**2) ** 0.5, sample)
    drift = torch.zeros_like(sample) - diffusion**2 * score
    noise = torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
    mean = sample - drift
    return mean + diffusion * noise, mean


def step_correct(score, sample, generator):
    noise = torch.randn(sample.shape, generator=generator)
    rows = sample.shape[0]
    grad_norm = torch.norm(score.reshape(rows, -1), dim=-1).mean()
    noise_norm = torch.norm(noise.reshape(rows, -1), dim=-1).mean()
    step = per_sample((SNR * noise_norm / grad_norm) ** 2 * 2 * torch.ones(rows), sample)
    return sample + step * score + (step * 2) ** 0.5 * noise


def add_noise(sample, noise, index, discrete):
    return sample + noise * discrete[index].view(-1, 1, 1, 1)


def main():
    request = json.load(sys.stdin)
    seconds = request["seconds"]
    timesteps = set_timesteps(STEPS)
    discrete, _ = set_sigmas(STEPS, timesteps)
    times = {}
    for threads in request["threads"]:
        torch.set_num_threads(threads)
        for dims in request["shapes"]:
            for name in request["types"]:
                dtype = getattr(torch, name)
                generator = torch.Generator().manual_seed(0)
                sample, score = (torch.randn(dims).to(dtype) for _ in range(2))
                index = torch.full((dims[0],), 1000)
                runs = {
                    "randn": lambda: torch.randn(dims, generator=generator, dtype=dtype),
                    "step_pred": lambda: step_pred(score, 0.5, sample, timesteps, discrete, generator),
                    "step_correct": lambda: step_correct(score, sample, generator),
                    "add_noise": lambda: add_noise(sample, score, index, discrete),
                }
                for op in request["ops"]:
                    key = f"{op} {'x'.join(map(str, dims))} {name} {threads}"
                    times[key] = median(runs[op], seconds)

    def tables():
        set_sigmas(STEPS, set_timesteps(STEPS))

    json.dump({"version": torch.__version__, "times": times, "tables": median(tables, seconds)}, sys.stdout)


if __name__ == "__main__":
    with torch.no_grad():
        main()
