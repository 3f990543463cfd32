"""The distillation step in PyTorch, for bench_peer.py: a process that runs one step for each line it reads.

Needs PyTorch and a folder with pytorch_i3d.py of github.com/piergiaj/pytorch-i3d; nothing of kdant. A line
holds the pixels of the clips; the answer is the step's loss.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

ENDPOINT = "Mixed_4f"


def main() -> None:
    """Says its versions in one line, then serves steps until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for option in ("--batch-size", "--frames", "--classes"):
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "auto"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    sys.path.insert(0, options.folder)
    import pytorch_i3d

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    has_gpu = options.device == "auto" and torch.cuda.is_available()
    torch.set_default_device("cuda" if has_gpu else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    steps: dict[int, Callable[[], float]] = {}
    for line in sys.stdin:
        pixels = int(line)
        if pixels not in steps:
            steps[pixels] = make_step(pytorch_i3d.InceptionI3d, pixels, options)
        print(steps[pixels](), flush=True)


def make_step(
    network_class: type[nn.Module], pixels: int, options: argparse.Namespace
) -> Callable[[], float]:
    """Teacher forward, student forward and back, SGD with momentum, on random clips."""
    torch.manual_seed(0)
    student, teacher = (make_network(network_class, pixels, options) for _ in range(2))
    student.train()
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-5)
    shape = (options.batch_size, 3, options.frames, pixels, pixels)
    observed, future = (2 * torch.rand(shape) - 1 for _ in range(2))
    labels = torch.arange(options.batch_size) % options.classes

    device = observed.device.type
    casting = torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16")

    def step() -> float:
        with casting:
            with torch.no_grad():
                _, future_map = run(teacher, future)
            logits, observed_map = run(student, observed)
        # As ours, the losses are computed in float32.
        feature_loss = bidirectional_loss(observed_map.float(), future_map.float())
        loss = functional.cross_entropy(logits.float(), labels) + 10.0 * feature_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def make_network(network_class: type[nn.Module], pixels: int, options: argparse.Namespace) -> nn.Module:
    """The port with a last pooling that spans its last map, whatever the clip's size."""
    network = network_class(options.classes, in_channels=3)
    steps, side = (math.ceil(options.frames / 8), math.ceil(pixels / 32))
    network.avg_pool = nn.AvgPool3d((min(2, steps), side, side), stride=1)
    return network


def run(network: nn.Module, clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `(B, classes)` and the endpoint's map."""
    maps: list[torch.Tensor] = []
    hook = network.get_submodule(ENDPOINT).register_forward_hook(lambda *call: maps.append(call[2]))
    logits = network(clip)
    hook.remove()
    return logits.mean(2), maps[0]


def bidirectional_loss(student_map: torch.Tensor, teacher_map: torch.Tensor) -> torch.Tensor:
    """L_d with Huber, averaged over positions and channels; from 3 products of positions with positions."""
    # (B, d, T, H, W) → (B, N, d)
    a, r = (value.flatten(2).transpose(1, 2).contiguous() for value in (student_map, teacher_map))
    alpha = a.shape[-1] ** -0.5
    cross = alpha * (a @ r.mT)

    def pool(similarities: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return similarities.softmax(-1) @ keys

    towards_teacher = functional.huber_loss(pool(cross, r), pool(alpha * (a @ a.mT), a))
    return towards_teacher + functional.huber_loss(pool(cross.mT, a), pool(alpha * (r @ r.mT), r))


if __name__ == "__main__":
    main()
