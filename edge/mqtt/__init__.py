"""The MQTT broker, seen from agent and fleet."""
