"""Figures, one function each: DataFrame -> matplotlib Figure, in paper or slide size.

`style` fixes colours, marks and sizes; `panels` the frame; `accuracy`, `cost`, `learning` and `evidence` draw; `plates`
lists which figures a study has, each with its caption; `files` writes them.
"""
