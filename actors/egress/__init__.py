"""Recording channels and web pages: tasks, their queue, and what carries them out."""
