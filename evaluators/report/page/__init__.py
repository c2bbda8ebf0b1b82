"""A report that is looked at: one HTML page with all tables, figures and cases, which asks for nothing else."""
