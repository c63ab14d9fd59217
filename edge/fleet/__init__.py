"""The operator's side: devices, keys, task definitions, assignments."""
