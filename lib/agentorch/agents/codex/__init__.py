"""Codex: its command line (`adapter`), the stream that it prints (`events`), how it ended."""
