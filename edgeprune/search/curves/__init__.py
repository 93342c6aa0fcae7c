"""How much each group or layer matters: curves of what is lost as it alone is cut."""
