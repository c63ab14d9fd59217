"""A container instance in the sense of Amazon ECS Anywhere, driven over MQTT, run by Podman."""

__version__ = "0.1.0"
