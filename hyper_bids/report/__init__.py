"""Pages that a person reads: a specification, figures and tables, and a template."""
