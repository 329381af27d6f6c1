"""The statistics of a report: DataFrame in, DataFrame out; every interval names its population.

In reading order: `cell_grid` (which runs are included), `intervals`, `cell_means`, `planned_contrasts` and `contrast_results`,
`sums_of_squares` and `variance_shares`, `pareto_front` and `cost_curves` (accuracy over cost), `protocol_check` (what was
equal), `answer` and `study_comparison` (the sentences), `report_tables` (the files) and `findings` (all of it, computed once).
"""
