"""``python -m adaptive_compute.cli`` is the ``adaptive`` command."""

from . import main

if __name__ == "__main__":
    main()
