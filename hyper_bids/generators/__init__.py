"""Image models: latents to images, and back where a model has an encoder."""
