"""What makes a copy in a new schema one that the application can run on: definitions, types, sequences, masks."""
