"""The report page: what a study found, on one self-contained HTML page, and its figures for papers."""
