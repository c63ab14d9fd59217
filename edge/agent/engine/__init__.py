"""Decides and acts: one thread owns all state."""
