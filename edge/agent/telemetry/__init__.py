"""What is measured and told of a device and its containers, on its way to the outbox."""
