"""The lazy image service."""
