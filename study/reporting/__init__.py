"""The answer of a sweep: statistics, figures, tables, report and page, all from its tables alone; no torch in here."""
