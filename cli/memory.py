"""Memory that this process holds: of the machine, and of a GPU where it computes on one."""

import sys
from pathlib import Path


def describe_memory() -> str:
    """ "2.1 GB", with "peak " before it where only that is known, and "GPU 3.2 GB" of the fullest GPU."""
    parts = []
    if (held := process_bytes()) is not None:
        parts.append(f"{held / 1e9:.1f} GB")
    elif (peak := peak_process_bytes()) is not None:
        parts.append(f"peak {peak / 1e9:.1f} GB")
    if (gpu := gpu_bytes()) is not None:
        parts.append(f"GPU {gpu / 1e9:.1f} GB")
    return ", ".join(parts)


def process_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """What is resident now, as Linux tells; None on other systems."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(kilobytes[0]) * 1024 if kilobytes else None


def peak_process_bytes() -> int | None:
    """The most that was ever resident; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, others kilobytes.
    return peak if sys.platform == "darwin" else peak * 1024


def gpu_bytes() -> int | None:
    """What TensorFlow has given out on the GPU that has most; None without one."""
    import tensorflow as tf

    names = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices("GPU")]
    return max((tf.config.experimental.get_memory_info(name)["current"] for name in names), default=None)
