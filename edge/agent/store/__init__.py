"""What survives on the device."""
