"""What models are judged by, and the last check of the best one on data that no search has seen."""
