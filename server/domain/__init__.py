"""What the product talks about, free of any framework: entities, operations, errors, time."""
