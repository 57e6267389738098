"""Images: read from folders, archives and tables, decoded once, and handed to training as views."""
