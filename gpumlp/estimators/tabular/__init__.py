"""What makes a network's inputs of a table: its columns as they are, and encodings of numbers."""
