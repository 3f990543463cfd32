"""Pictures a person can judge by: what networks say, where they look, and where it went."""
