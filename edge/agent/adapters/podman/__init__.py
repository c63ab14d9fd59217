"""Podman as the container engine, through its own REST API; nothing of podman-py is seen outside this package."""

from edge.agent.adapters.podman.engine import PodmanEngine

__all__ = ["PodmanEngine"]
