"""The command line."""


def main() -> None:
    """Run the ``adaptive`` command."""
    raise SystemExit("not yet")
