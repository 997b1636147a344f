"""Image models made from a folder of images: ``train-vaegan`` and ``fit-eigenface``."""
