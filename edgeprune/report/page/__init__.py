"""A report as one HTML file that needs no network: what is on it as data, its plots, and its template."""
