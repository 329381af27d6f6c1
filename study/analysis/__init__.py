"""The statistics of a report: DataFrame in, DataFrame out, and every interval says which population it speaks about.

Read in this order: `grid` (which runs count), `intervals` (t and block intervals on arrays), `cells`, `contrasts` (what
was planned to be compared) and `comparisons` (what came out), `factorial` and `decomposition` (shares of variation),
`frontier` and `scaling` (accuracy per cost), `fairness` (what was equal, from the records), `answer` (the sentence).
"""
