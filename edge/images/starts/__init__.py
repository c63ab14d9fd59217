"""What an image's start reads: recorded, kept, fetched first, and packed into a start bundle."""
