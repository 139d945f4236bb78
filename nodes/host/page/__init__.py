"""What the page shows: what it asks of the server, and what nodes give it to draw."""
