"""The operations, one family a file: user functions, checks, work, gradient rule, reference."""
