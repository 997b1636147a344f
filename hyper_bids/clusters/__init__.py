"""Many participants on a cluster: the scripts that run the app once for each of them.

The app itself stays one participant a process; a scheduler spreads it.
"""
