"""What is here for other processes: plugins that replace what they test, and a package that is installed first."""

collect_ignore_glob = ["*_plugin.py", "example_backend/*"]
