"""What explains a method: saturation, clouds, embeddings."""
