"""One participant: from BOLD and events to scored reconstructions, one module a stage."""
