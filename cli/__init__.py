"""The `kdant` command line: one file a verb."""
