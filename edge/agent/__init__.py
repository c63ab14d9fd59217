"""The device's mind: desired state in, containers, state and telemetry out."""
