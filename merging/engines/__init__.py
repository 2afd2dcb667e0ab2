"""Streams and readers: through torch anywhere, through C loops on the CPU."""
