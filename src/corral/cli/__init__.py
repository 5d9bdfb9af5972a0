"""The command line: what a person types. It uses the public HTTP APIs and nothing else."""
