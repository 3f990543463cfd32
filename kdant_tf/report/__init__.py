"""One self-contained page about runs or a study."""
