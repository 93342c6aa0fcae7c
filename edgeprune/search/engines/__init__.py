"""Where trials are made, in this process or as Ray tasks, and what asks for them on behalf of a strategy."""
