"""A report as one HTML file that needs no network: what is on it as data, its plots, and the template it is made from."""
