"""What the runs amount to: budgets, statistics, tables and figures, from the index alone."""
