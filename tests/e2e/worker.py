"""One worker: kdant with the arguments given, and afterwards the weights it ended with, for a test.

    python worker.py WEIGHTS.npz DIE_AFTER_STEP ARGUMENTS…

DIE_AFTER_STEP counts all steps; 0 lives on.
"""

import os
import signal
import sys
from typing import Any


def main(weights: str, die_after_step: int, arguments: list[str]) -> None:
    from tf_records.start_tensorflow import start_tensorflow

    start_tensorflow()
    from kdant_tf.training import train
    from kdant_tf.training.checkpoint import RunCheckpoints

    networks: list[Any] = []
    assemble, on_train_batch_end = train.assemble, RunCheckpoints.on_train_batch_end

    def keep(*args: Any, **options: Any) -> Any:
        assembly = assemble(*args, **options)
        networks.append(assembly.network)
        return assembly

    def die(self: RunCheckpoints, *args: Any, **options: Any) -> None:
        if self.position.global_step == die_after_step:
            os.kill(os.getpid(), signal.SIGKILL)
        on_train_batch_end(self, *args, **options)

    train.assemble, RunCheckpoints.on_train_batch_end = keep, die  # type: ignore[method-assign]
    from kdant_cli.main import main as kdant

    code = kdant(arguments, standalone_mode=False)
    if code:
        sys.exit(code)
    import numpy as np

    np.savez(weights, **{each.path.replace("/", " "): each.numpy() for each in networks[0].weights})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
