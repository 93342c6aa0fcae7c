"""What a search leaves behind: its trials and measurements, kept as they are made, and its logs."""
