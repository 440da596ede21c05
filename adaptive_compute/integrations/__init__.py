"""Integrations with other libraries, each loaded only when its library is in use."""
