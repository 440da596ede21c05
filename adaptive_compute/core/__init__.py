"""The core: knows no library but NumPy, and re-exports nothing."""
