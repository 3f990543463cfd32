"""Options of build-records that do not fit the source or are out of range."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from kdant_cli.main import main


@pytest.fixture
def epic(tmp_path: Path) -> Path:
    """Annotations of one action, without video."""
    (tmp_path / "EPIC_train_action_labels.csv").write_text(
        "uid,participant_id,video_id,start_timestamp,stop_timestamp,verb_class\n"
        "1,P01,P01_01,00:00:03.00,00:00:03.90,0\n"
    )
    (tmp_path / "EPIC_verb_classes.csv").write_text("verb_id,class_key\n0,open\n")
    return tmp_path


@pytest.mark.parametrize(
    ("code", "args", "words"),
    [
        (
            2,
            ("--source", "csv", "--target", "noun"),
            "--target is for --source epic55 or epic100. Received: --source csv",
        ),
        (2, ("--source", "epic55", "--allow-outside"), "--allow-outside is for --source csv"),
        (2, ("--source", "epic55", "--split", "2"), "--split is for --source jhmdb"),
        (2, ("--source", "epic55", "--offset-frames", "3", "--anticipation-s", "1"), "not both"),
        (
            2,
            ("--source", "epic55", "--anticipation-s", "nan"),
            "should be seconds, at least 0, such as 1 or 0.5,1,2",
        ),
        (1, ("--source", "epic55", "--fps", "0"), "`fps` should be above 0"),
        (1, ("--source", "epic55", "--limit", "0"), "`--limit` should be at least 1"),
        (1, ("--source", "epic55", "--label-fraction", "2"), "`--label-fraction` should be from 0 to 1"),
        (1, ("--source", "epic55", "--unlabeled-per-label", "-1"), "`--unlabeled-per-label` should be"),
        (1, ("--source", "epic55", "--classes", "opne"), "names opne, which does not occur"),
        (1, ("--source", "thumos14"), "Found no CLASS_val.txt under"),
    ],
)
def test_a_wrong_option_is_named(epic: Path, code: int, args: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(main, ["build-records", "--input", str(epic), *args, "--dry-run"])
    assert result.exit_code == code
    assert result.stdout == ""
    assert words in " ".join(result.stderr.replace("│", " ").split())
