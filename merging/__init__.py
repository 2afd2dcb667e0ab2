"""Amalgam's engine: open, scan, plan, merge, try. Knows no screen."""

__version__ = "0.1.0"
