"""The fuzzing targets accept their seeds, and some simple mutations of them; `make fuzz` does the rest."""

from pathlib import Path

import fuzz_targets
import pytest


@pytest.mark.parametrize("name", fuzz_targets.TARGETS)
def test_seeds_are_sound_and_their_mutations_raise_nothing_else(name: str, tmp_path: Path) -> None:
    target = fuzz_targets.TARGETS[name]
    for seed in target.seeds:
        target.check(seed, tmp_path)
        for data in fuzz_targets.mutations(seed, 30):
            fuzz_targets.run_target(name, data, tmp_path)
    fuzz_targets.run_target(name, b"", tmp_path)
