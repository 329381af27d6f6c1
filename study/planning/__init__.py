"""From a sweep to its runs: cells, widths solved for the budget, traced cost, trials and their selection."""
