"""Exact order statistics, and which of many equal changes stay."""
