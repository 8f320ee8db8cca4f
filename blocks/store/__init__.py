"""The only code that runs SQL. PostgreSQL is the one truth about jobs, tasks and labels."""
