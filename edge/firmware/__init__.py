"""What a device boots and runs as `edge` itself: bundles, versions beside each other, trials, the way back."""
