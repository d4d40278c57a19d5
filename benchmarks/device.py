"""A device's name, its limit, and how often a second it does a thing.

The limit is the faster of a large matrix product and a large convolution: one of the two alone is
none, for on an AMD CPU torch's float32 convolutions run at more than twice its product's rate.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from training.machine import Machine

SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product stands for the limit."""
# Of the convolution that stands for the limit: large enough to fill the device.
CHANNELS, PLACES = 128, 12
BATCH = {"cpu": 32, "cuda": 2048}


def limit(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Return floating-point operations a second of the faster of a product and a convolution."""
    here = Machine(device)
    side, batch = SIDE[device.type], BATCH[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in "ab")
    conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False, device=device, dtype=dtype)
    features = torch.randn(batch, CHANNELS, PLACES, PLACES, device=device, dtype=dtype)
    conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = features.to(memory_format=torch.channels_last)
    works: tuple[tuple[Callable[[], object], float], ...] = (
        (lambda: left @ right, 2.0 * side**3),
        (lambda: conv(features), 2.0 * batch * (CHANNELS * PLACES * 3) ** 2),
    )
    with torch.inference_mode():
        for work, _ in works:
            rate(work, 0.0, here)  # chooses kernels
        return max(operations * rate(work, seconds, here) for work, operations in works)


def rate(work: Callable[[], object], seconds: float, here: Machine) -> float:
    """Return how often a second `work` runs, over at least three times."""
    clock = clock_of(here.device)
    times, began = 0, clock()
    while times < 3 or clock() - began < seconds:
        work()
        times += 1
        if here.device.type == "cuda" and times % 50 == 0:
            torch.cuda.synchronize()
    if here.device.type == "cuda":
        torch.cuda.synchronize()
    return times / (clock() - began)


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock for work on a device, in seconds.

    CPU time of the thread where it computes alone, as other processes disturb that less; else the
    wall clock.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def name_of(here: Machine) -> str:
    """Return the device's name."""
    if here.device.type == "cuda":
        return torch.cuda.get_device_name(here.device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
