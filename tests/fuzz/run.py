"""Fuzzes one target with atheris: `run.py TARGET [libFuzzer's options]`, or lists them: `run.py --list`.

The corpus is kept in `.fuzz/TARGET`; what fails is written to the current folder by libFuzzer.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import atheris

with atheris.instrument_imports(include=["tf_records", "kdant_tf.config"]):
    import fuzz_targets

    if "records" in sys.argv[1:2]:
        import tf_records.verify  # noqa: F401  TensorFlow, which the other targets do without

CORPUS = Path(".fuzz")


def main() -> None:
    if sys.argv[1:] == ["--list"]:
        print("\n".join(fuzz_targets.TARGETS))
        return
    name, options = sys.argv[1], sys.argv[2:]
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(fuzz_targets.TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            sys.argv[0],
            "-max_len=20000",
            "-timeout=30",
            "-rss_limit_mb=4096",
            *options,
            str(corpus),
        ]
        atheris.Setup(arguments, lambda data: fuzz_targets.run_target(name, data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
