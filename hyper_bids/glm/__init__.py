"""Single-trial responses: HRF, design and estimates."""
