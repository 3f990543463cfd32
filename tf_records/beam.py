"""The same shards, written by the workers of Apache Beam. Apache Beam is imported when it is used.

Beam carries the plan to its workers and nothing back: what a finished shard holds is in its note, in
the record folder, which every worker and the submitting process must reach under the same name.
"""

import contextlib
import io
import logging
import pickle
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from tf_records.errors import KdantError, RecordError
from tf_records.plan import ShardTask
from tf_records.remote_path import RecordPath
from tf_records.writer import ShardResult, read_note, write_shard

# Their job server has options of its own, of which Beam's Python does not know.
_WITH_JOB_SERVER = ("PortableRunner", "FlinkRunner", "SparkRunner")


def parse_beam_options(flags: Sequence[str]) -> Any:
    """Apache Beam's PipelineOptions of a command line.

    Raises:
        KdantError: Apache Beam is missing, or does not know an option.
    """
    logging.disable(logging.WARNING)  # its import warns of extras that it lacks
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, WorkerOptions
    except ImportError as error:
        raise KdantError(
            "`--runner beam` needs Apache Beam, which is not installed. Install kdant's extra `beam`."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions(list(flags))
            known = options.get_all_options(retain_unknown_options=False)
            unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    except SystemExit as error:
        reason = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise KdantError(f"Apache Beam refuses its options: {reason}.") from error
    stray = [flag for flag in flags[:1] if not flag.startswith("--")]
    names = [*(f"--{name}" for name in sorted(unknown)), *stray]
    if names and options.view_as(StandardOptions).runner not in _WITH_JOB_SERVER:
        raise KdantError(
            f"Apache Beam does not know {', '.join(names)}. Give its options after `--`, such as "
            f"`-- --runner=DirectRunner --direct_num_workers=2`."
        )
    worker_options = options.view_as(WorkerOptions)
    if worker_options.default_sdk_harness_log_level is None:
        # What fails is raised in the submitting process too.
        worker_options.default_sdk_harness_log_level = "CRITICAL"
    return options


def write_shards_on_beam(
    tasks: tuple[ShardTask, ...], out: RecordPath, options: Any
) -> Iterator[ShardResult]:
    """Writes all shards in one pipeline, then yields what their notes say.

    Raises:
        KdantError: the pipeline failed (says why), or wrote where this process cannot see it.
    """
    import apache_beam

    # Runners limit the size of a pipeline, and a plan of thousands of samples is repetitive.
    packed = [zlib.compress(pickle.dumps(task)) for task in tasks]
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            (
                pipeline
                | "plan" >> apache_beam.Create(packed)
                | "spread" >> apache_beam.Reshuffle()
                | "write shards" >> apache_beam.Map(_write_packed, out)
            )
    except Exception as error:  # a runner raises what it likes
        raise KdantError(
            f"Apache Beam could not write the records: {_reason(error)}. The finished shards are kept: go on "
            f"with the same command and --resume."
        ) from error
    for task in tasks:
        result = read_note(task, out)
        if result is None:
            raise RecordError(
                f"Apache Beam has finished, but {task.file} is not in {out}. Give an --out that every worker "
                f"and this machine reach under the same name."
            )
        yield result


def _write_packed(packed: bytes, out: RecordPath) -> str:
    task: ShardTask = pickle.loads(zlib.decompress(packed))
    return write_shard(task, out).shard.file


def _reason(error: BaseException) -> str:
    """The last line of the innermost traceback that the error quotes, without its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    reason = named[-1].partition(": ")[2] if named else lines[-1]
    return reason.partition(" [while running")[0].rstrip(".")
