"""What a training will need, told from the model's ``config.json`` and the recipe alone."""
