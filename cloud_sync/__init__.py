"""The cloud companion: drains what plants send into the lake, trains the models, and stands in for the cloud."""
