"""Compare runs within budgets: statistics, tables and figures, from the index alone."""
