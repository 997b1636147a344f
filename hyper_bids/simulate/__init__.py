"""A synthetic BIDS dataset with known latents: the demo, and the fixture of the tests."""
