"""Responses that others estimated, in files of their own kind, as a dataset of this app."""
