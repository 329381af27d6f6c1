"""Figures, one function each: DataFrame -> matplotlib Figure, in paper or slide size.

`style` fixes colors, marks and sizes; `panels` the axes and the legend; the `*_plots` modules draw; `catalog` and
`training_catalog` list which figures a study has, each with its caption; `figure_files` writes them.
"""
