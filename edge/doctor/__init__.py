"""What is wrong with this device, and what to do about it: facts are read, judged, and where it is safe mended."""
